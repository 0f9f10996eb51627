"""`picochat run tiny`: what it runs on, and resume checkpoints that stages begin with."""

from pathlib import Path

import pytest
from picochat_client.program import main
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_trainer.commands import shown_run
from picochat_trainer.local_run import LocalRun, LocalStage


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[LocalRun]:
    """The runs that the command starts; none does anything."""
    found: list[LocalRun] = []

    class Recorded(LocalRun):
        def run(self) -> list[LocalStage]:
            found.append(self)
            raise ContractError(Code.INTERNAL, "seen")

    monkeypatch.setattr(shown_run, "LocalRun", Recorded)
    return found


def tiny(out: Path, *options: str) -> int:
    return main(["run", "tiny", "--out-dir", str(out), "--scale", "smoke", *options])


def checkpoint(folder: Path) -> Path:
    """What looks like a resume checkpoint."""
    folder.mkdir(parents=True)
    (folder / "training_state.json").write_text("{}")
    return folder


def test_ranks_strategy_and_machines_reach_the_resources(tmp_path: Path, started: list[LocalRun]) -> None:
    options = ["--nproc-per-node", "2", "--distributed-strategy", "fsdp", "--rdzv-endpoint", "first:29500"]
    assert tiny(tmp_path, *options) == ClientExit.USAGE
    resources = started[0].resources
    assert (resources.num_ranks, resources.nnodes, resources.distributed_strategy) == (2, 1, "fsdp")
    assert resources.rdzv_endpoint == "first:29500"


def test_machines_that_cannot_meet_are_refused(
    tmp_path: Path, started: list[LocalRun], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny(tmp_path, "--nnodes", "2") == ClientExit.USAGE
    assert "rdzv_endpoint" in capsys.readouterr().err and not started


@pytest.mark.parametrize("stage", ["base", "sft"])
def test_a_stage_begins_with_the_checkpoint_that_it_is_given(
    tmp_path: Path, started: list[LocalRun], stage: str
) -> None:
    source = checkpoint(tmp_path / "other/resume_checkpoint")
    tiny(tmp_path / "out", f"--{stage}-resume-from", str(source))
    assert started and (tmp_path / "out" / stage / "resume_checkpoint/training_state.json").is_file()


@pytest.mark.parametrize("begun", ["base/resume_checkpoint", "stages/base"])
def test_a_stage_that_has_begun_goes_on_with_its_own(
    tmp_path: Path, started: list[LocalRun], begun: str
) -> None:
    source = checkpoint(tmp_path / "other/resume_checkpoint")
    (tmp_path / "out" / begun).mkdir(parents=True)
    tiny(tmp_path / "out", "--base-resume-from", str(source))
    assert started and not (tmp_path / "out/base/resume_checkpoint/training_state.json").exists()


def test_what_is_no_checkpoint_is_named_with_its_option(
    tmp_path: Path, started: list[LocalRun], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny(tmp_path / "out", "--sft-resume-from", str(tmp_path)) != ClientExit.OK
    assert "--sft-resume-from" in capsys.readouterr().err and not started
