"""`--resume-from`: a training goes on in another folder, from a copy of its resume checkpoint."""

import json
from pathlib import Path

import pytest
from picochat_client.program import main
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_trainer.commands.train_options import take_up
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer

OPTIONS = [
    "--context-size",
    "32",
    "--n-layer",
    "1",
    "--n-head",
    "2",
    "--n-embd",
    "16",
    "--max-steps",
    "6",
    "--batch-size",
    "2",
    "--eval-every",
    "3",
    "--log-every",
    "1",
    "--checkpoint-every",
    "2",
    "--sample-tokens",
    "4",
    "--canary-count",
    "0",
    "--device",
    "cpu",
    "--compile",
    "off",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What to train on, a whole training and one that was stopped."""
    folder = tmp_path_factory.mktemp("trainings")
    text = "".join(f"Line {number} says that {number} follows {number - 1}.\n" for number in range(400))
    (folder / "corpus.txt").write_text(text)
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, folder / "tokenizer.json", folder / "tokenizer_config.json")
    assert train(folder, folder / "whole") == ClientExit.OK
    train(folder, folder / "stopped", "--stop-after-steps", "3")
    return folder


def train(files: Path, out: Path, *options: str) -> int:
    arguments = ["--corpus", str(files / "corpus.txt"), "--tokenizer", str(files / "tokenizer.json")]
    return main(["train", "base", *arguments, "--out-dir", str(out), *OPTIONS, *options])


def losses(folder: Path) -> list[dict[str, float]]:
    report = json.loads((folder / "train_report.json").read_text())
    return [{key: row[key] for key in ("step", "train_loss")} for row in report["losses"]]


def checkpoint(folder: Path) -> Path:
    """What looks like a resume checkpoint."""
    folder.mkdir(parents=True)
    (folder / "training_state.json").write_text("{}")
    return folder


@pytest.mark.parametrize("given", ["stopped", "stopped/resume_checkpoint"])
def test_a_stopped_training_goes_on_elsewhere_as_if_it_had_not_stopped(
    files: Path, tmp_path: Path, given: str
) -> None:
    assert train(files, tmp_path / "moved", "--resume-from", str(files / given)) == ClientExit.OK
    assert losses(tmp_path / "moved") == losses(files / "whole")


def test_a_training_of_another_config_is_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--resume-from", str(files / "stopped"), "--learning-rate", "0.5"]
    assert train(files, tmp_path / "moved", *options) == ClientExit.RUN_FAILED
    assert "learning_rate" in capsys.readouterr().err


def test_a_folder_without_a_resume_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no resume checkpoint.*give the folder") as refused:
        take_up(tmp_path, tmp_path / "base")
    assert refused.value.code is Code.FILE_UNREADABLE


def test_a_checkpoint_of_its_own_is_not_overwritten(tmp_path: Path) -> None:
    source, own = (checkpoint(tmp_path / name / "resume_checkpoint") for name in ("other", "base"))
    with pytest.raises(ContractError, match="already holds a resume checkpoint"):
        take_up(source, tmp_path / "base")
    take_up(own, tmp_path / "base")  # its own: nothing to do
    assert (own / "training_state.json").is_file()


def test_the_checkpoint_that_was_given_stays(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "other" / "resume_checkpoint")
    take_up(source, tmp_path / "base")
    assert (source / "training_state.json").is_file()
    assert (tmp_path / "base/resume_checkpoint/training_state.json").is_file()
