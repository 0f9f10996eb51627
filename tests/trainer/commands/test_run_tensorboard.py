"""`--tensorboard-log-dir` as a user gives it: real stages, and event files that TensorBoard reads."""

import json
import shutil
from pathlib import Path

import pytest
from picochat_client.program import main
from picochat_contract.exit_codes import ClientExit
from picochat_trainer import local_run
from picochat_trainer.commands.train_options import board_folder
from picochat_trainer.preflight import machine
from support.in_process import run_stage_here

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
QUICK = [
    *("--scale", "smoke", "--device", "cpu", "--base-max-steps", "3", "--sft-max-steps", "2"),
    *("--set", "dataset.sft_rows=32", "--set", "dataset.eval_rows=16", "--set", "base.canary_count=0"),
    *("--set", "resources.num_threads=1", "--set", "base.log_every=1", "--set", "sft.log_every=1"),
]


def tiny(out: Path, *options: str) -> int:
    return main(["run", "tiny", "--out-dir", str(out), *QUICK, *options])


def steps_of(folder: Path) -> list[int]:
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return [event.step for event in found.Scalars("train_loss")]


def test_both_trainings_of_a_run_write_below_the_folder(tmp_path: Path) -> None:
    out, board = tmp_path / "run", tmp_path / "board"
    assert tiny(out, "--until", "sft", "--tensorboard-log-dir", str(board)) == ClientExit.OK
    assert steps_of(board / "base") == [1, 2, 3] and steps_of(board / "sft") == [1, 2]
    assert not list(out.rglob("*tfevents*"))
    manifest = json.loads((out / "stages/base/manifest.json").read_text())
    assert not [output["path"] for output in manifest["outputs"] if "tensorboard" in output["path"]]


def test_a_finished_training_is_not_run_again_where_its_event_files_were_cleared_or_are_wanted_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, board = tmp_path / "run", tmp_path / "board"
    options = ["--until", "base", "--tensorboard-log-dir", str(board)]
    assert tiny(out, *options) == ClientExit.OK
    shutil.rmtree(board)
    capsys.readouterr()
    other = [*options[:-1], str(tmp_path / "other")]
    for again in (options, other):
        assert tiny(out, *again) == ClientExit.OK
        assert "base       cached" in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_and_the_run_after_it_write_to_one_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the run folder itself, the files keep away from the checkpoints."""
    options = ["--until", "base", "--tensorboard-log-dir", str(tmp_path)]
    assert tiny(tmp_path, *options, "--dry-run-steps", "2") == ClientExit.OK
    assert steps_of(tmp_path / "base/tensorboard") == [1, 2]
    assert tiny(tmp_path, *options) == ClientExit.OK
    assert steps_of(tmp_path / "base/tensorboard") == [1, 2, 3]
    for _ in range(2):
        assert tiny(tmp_path, *options) == ClientExit.OK
    assert "base       cached" in capsys.readouterr().out


def test_without_tensorboard_preflight_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_run, "run_stage", run_stage_here)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    assert tiny(tmp_path, "--tensorboard-log-dir", str(tmp_path / "board")) == ClientExit.GATE_BLOCKED
    printed = " ".join(capsys.readouterr().out.split())
    assert "not installed: tensorboard" in printed and "install picochat[monitor]" in printed


@pytest.mark.parametrize(
    ("stage_dir", "folder", "expected"),
    [
        ("runs/x/base", "board", "board"),
        ("runs/x/base", "runs/x/tensorboard", "runs/x/tensorboard"),
        ("runs/x/base", "runs/x/base", "runs/x/base/tensorboard"),
        ("runs/x/base", "runs", "runs/tensorboard"),
        ("runs/x/base", "runs/y/../x/base", "runs/x/base/tensorboard"),
    ],
)
def test_event_files_are_never_around_the_checkpoints(stage_dir: str, folder: str, expected: str) -> None:
    assert board_folder(Path(stage_dir), Path(folder)) == Path(expected).absolute()


def test_a_link_to_the_stage_s_folder_is_that_folder(tmp_path: Path) -> None:
    stage_dir = tmp_path / "base"
    stage_dir.mkdir()
    (tmp_path / "link").symlink_to(stage_dir)
    assert board_folder(stage_dir, tmp_path / "link") == (stage_dir / "tensorboard").resolve()
