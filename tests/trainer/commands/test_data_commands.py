"""`picochat data`, `picochat tok`, `picochat eval`: what they write, what they print, how they fail."""

import subprocess
import sys
from pathlib import Path

import pytest
from picochat_client.program import main
from picochat_contract import layout
from picochat_contract.configs import ModelConfig
from picochat_contract.evidence import EvalEvidence
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.checkpoint import Metadata, Weights, save_weights


def text_file(folder: Path) -> Path:
    path = folder / "source.txt"
    path.write_text("\n".join(f"Line {n} of a small source." for n in range(60)) + "\n")
    return path


@pytest.mark.parametrize("type", ["char", "byte", "bpe", "hf_bpe"])
def test_tok_train_writes_a_tokenizer(tmp_path: Path, type: str) -> None:
    out = tmp_path / "made/tokenizer.json"
    arguments = [
        "--input",
        str(text_file(tmp_path)),
        "--out",
        str(out),
        "--type",
        type,
        "--vocab-size",
        "300",
    ]
    assert main(["tok", "train", *arguments]) == 0
    assert Tokenizer.load(out).decode(Tokenizer.load(out).encode("Line 7")) == "Line 7"
    assert (out.parent / "tokenizer_config.json").exists()


def test_tok_train_refuses_an_impossible_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(text_file(tmp_path)), "--out", str(tmp_path / "t.json"), "--vocab-size", "10"]
    assert main(["tok", "train", *arguments]) == 64
    assert "error [invalid_value]: vocab_size" in capsys.readouterr().err


def eval_arguments(folder: Path) -> list[str]:
    """A random checkpoint with its tokenizer and one item."""
    assert (
        main(
            [
                "tok",
                "train",
                "--input",
                str(text_file(folder)),
                "--out",
                str(folder / "tokenizer.json"),
                "--type",
                "byte",
            ]
        )
        == 0
    )
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=64), 260)
    model.init_weights(1)
    weights = Weights(tensors=model.state_dict(), config=model.config, vocab_size=260)
    save_weights(folder / "checkpoint", weights, Metadata(kind="last", step=1))
    (folder / "eval.jsonl").write_text('{"user": "Hi", "must_include": ["hello"]}\n')
    arguments = ["--input", str(folder / "eval.jsonl"), "--checkpoint", str(folder / "checkpoint")]
    arguments += ["--tokenizer", str(folder / "tokenizer.json"), "--out-dir", str(folder / "out")]
    return [*arguments, "--max-new-tokens", "3", "--device", "cpu"]


@pytest.mark.slow
@pytest.mark.usefixtures("stage_programs")
def test_eval_chat_scores_a_checkpoint_in_its_own_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "chat", *eval_arguments(tmp_path)]) == 0
    evidence = EvalEvidence.model_validate_json((tmp_path / "out/eval_report.json").read_text())
    assert evidence.overall.num_examples == 1
    assert (tmp_path / "out/report.md").exists()
    assert "| all items | 0 | 1 |" in capsys.readouterr().out
    assert (tmp_path / "out/stages/eval/manifest.json").exists()


@pytest.mark.slow
def test_eval_chat_says_why_the_stage_gave_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = eval_arguments(tmp_path)
    (tmp_path / "checkpoint" / layout.WEIGHTS).unlink()
    assert main(["eval", "chat", *arguments]) == 2
    assert "error [checkpoint_corrupt]" in capsys.readouterr().err


def test_eval_chat_refuses_a_bad_row_before_it_loads_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval.jsonl").write_text('{"user": "Hi"}\n')
    arguments = ["--input", str(tmp_path / "eval.jsonl"), "--checkpoint", "none", "--tokenizer", "none"]
    assert main(["eval", "chat", *arguments, "--out-dir", str(tmp_path / "out")]) == 64
    assert "error [bad_row]: eval.jsonl, line 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_commands_import_no_torch() -> None:
    modules = (
        "picochat_trainer.commands.data, picochat_trainer.commands.tok, picochat_trainer.commands.evaluate"
    )
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False\n"
    )
