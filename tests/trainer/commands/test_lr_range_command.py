"""`picochat train lr-range` as a user calls it."""

import json
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from picochat_client.program import main
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.exit_codes import ClientExit
from picochat_trainer.commands.lr_range import base_config
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer

MODEL = ["--context-size", "32", "--n-layer", "1", "--n-head", "2", "--n-embd", "16", "--batch-size", "2"]


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    """The command takes all cores; what runs after it in this process should not."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("\n\n".join(topics[name] for name in sorted(topics)[:12]))
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json")
    return tmp_path


def sweep(files: Path, *options: str) -> int:
    arguments = ["--corpus", str(files / "corpus.txt"), "--tokenizer", str(files / "tokenizer.json")]
    return main(
        ["train", "lr-range", *arguments, "--out-dir", str(files / "lr"), "--device", "cpu", *options]
    )


def test_a_rate_is_recommended_and_no_weights_are_kept(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(files, *MODEL, "--steps", "12", "--min-lr", "1e-4", "--optimizer", "muon") == ClientExit.OK
    report = json.loads((files / "lr/lr_range.json").read_text())
    assert 1e-4 <= report["recommended_learning_rate"] <= 1e-2
    assert len(report["points"]) == 12
    assert (report["optimizer"], report["config"]["model"]["n_embd"]) == ("muon", 16)
    assert "| step | learning rate |" in (files / "lr/lr_range.md").read_text()
    assert (files / "lr/lr_range.png").read_bytes().startswith(b"\x89PNG")
    assert not list((files / "lr").rglob("*.safetensors"))
    out = capsys.readouterr().out
    assert f"recommended learning rate: {report['recommended_learning_rate']:.2g}" in out


def test_a_bad_sweep_is_refused_before_the_tokens_are_built(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(files, "--min-lr", "1") != ClientExit.OK
    assert "--max-lr must be over 1" in capsys.readouterr().err
    assert not (files / "lr").exists()


def test_options_and_settings_go_over_the_preset() -> None:
    plain = base_config("demo", {}, [])
    config = base_config("demo", {"base.model.n_layer": 7, "base.seed": None}, ["base.model.qk_norm=false"])
    assert (config.model.n_layer, config.model.qk_norm) == (7, False)
    assert (config.seed, config.model.n_embd) == (plain.seed, plain.model.n_embd)


@pytest.mark.parametrize(
    ("options", "accumulation"),
    [
        ({"base.max_steps": 10_000}, 29),
        ({"base.global_batch_tokens": 16_384}, 8),
        ({"base.global_batch_tokens": 16_384, "resources.nproc_per_node": 8}, 8),
    ],
)
def test_the_one_process_of_a_sweep_takes_the_batch_of_the_run(
    options: dict[str, Any], accumulation: int
) -> None:
    assert base_config("demo", options, []).grad_accum_steps == accumulation
