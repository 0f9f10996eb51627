"""A base stage that is killed at any moment and started again ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.exit_codes import StageExit
from support.forks import ForkedStage

WEIGHTS = ("base/checkpoint/model.safetensors", "base/best_checkpoint/model.safetensors")
DEADLINE_SECONDS = 120


@pytest.fixture(scope="module")
def seed() -> int:
    return 20_260_101


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "stages/base/events.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def until(process: ForkedStage | subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
    """Wait, without sleeping long enough to miss anything; False if the process ends before."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.0002)
    return True


def logged_step(run_dir: Path) -> int:
    """The last step in the events, cheaply."""
    path = run_dir / "stages/base/events.jsonl"
    tail = path.read_bytes()[-2000:].split(b"\n")[1:-1] if path.exists() else []
    steps = [json.loads(line)["data"].get("step", 0) for line in tail if b'"progress"' in line]
    return max(steps, default=0)


def unfinished_checkpoints(run_dir: Path) -> list[str]:
    base = run_dir / "base"
    names = os.listdir(base) if base.exists() else []
    return [name for name in names if name.startswith(".resume_checkpoint.tmp-")]


def steps_in_report(run_dir: Path) -> dict[str, Any]:
    report = json.loads((run_dir / "base/train_report.json").read_text())
    return {
        key: report[key] for key in ("losses", "val_bpb", "subject", "best_step", "tokens_seen", "sample")
    }


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run: Path) -> Path:
    return undisturbed_run


def assert_same_end(run_dir: Path, undisturbed: Path) -> None:
    for name in WEIGHTS:
        assert (run_dir / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert steps_in_report(run_dir) == steps_in_report(undisturbed)


def kill_points(rng: random.Random) -> Iterator[int | None]:
    """Steps to kill at; None is while a checkpoint is being written."""
    yield from (rng.randrange(1, 12), None, rng.randrange(16, 35), None, rng.randrange(40, 58))


@pytest.mark.slow
def test_killed_at_random_points_it_ends_with_equal_bytes(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
    undisturbed: Path,
    seed: int,
) -> None:
    run_dir = new_run("killed")
    kills_in_writing = 0
    for target in kill_points(random.Random(seed)):
        before = logged_step(run_dir)
        process = start_stage(run_dir)
        if target is None:
            reached = until(process, lambda: bool(unfinished_checkpoints(run_dir)))
        else:
            goal = max(target, before + 1)
            reached = until(process, lambda goal=goal: logged_step(run_dir) >= goal)
        process.kill()
        process.wait()
        assert reached, "the stage ended before it could be killed"
        kills_in_writing += bool(unfinished_checkpoints(run_dir))
    assert kills_in_writing >= 1
    assert finish_stage(run_dir) == StageExit.DONE
    assert_same_end(run_dir, undisturbed)
    assert unfinished_checkpoints(run_dir) == []
    assert [event["seq"] for event in read_events(run_dir)] == list(range(1, len(read_events(run_dir)) + 1))


def test_stopped_between_the_two_renames_of_a_checkpoint_it_goes_on_from_previous(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
    undisturbed: Path,
) -> None:
    run_dir = new_run("renamed")
    process = start_stage(run_dir)
    assert until(process, lambda: logged_step(run_dir) >= 25)
    process.kill()
    process.wait()
    resume = run_dir / "base/resume_checkpoint"
    if resume.exists():  # the state that a kill between the renames leaves
        shutil.rmtree(run_dir / "base/resume_checkpoint.previous", ignore_errors=True)
        resume.rename(run_dir / "base/resume_checkpoint.previous")
    assert finish_stage(run_dir) == StageExit.DONE
    assert_same_end(run_dir, undisturbed)
    messages = [e["data"]["message"] for e in read_events(run_dir) if e["type"] == "log"]
    assert any("resume_checkpoint.previous" in message for message in messages)


def test_sigterm_leaves_a_complete_checkpoint_and_exits_75(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
    undisturbed: Path,
) -> None:
    run_dir = new_run("stopped")
    process = start_stage(run_dir, checkpoint_every=1000)
    assert until(process, lambda: logged_step(run_dir) >= 7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == StageExit.INTERRUPTED
    assert not (run_dir / "stages/base/manifest.json").exists()
    checkpoint = [e["data"] for e in read_events(run_dir) if e["type"] == "checkpoint"][-1]
    assert checkpoint["step"] >= 7
    for file in checkpoint["files"]:
        assert (run_dir / file["path"]).stat().st_size == file["size_bytes"]
    assert finish_stage(run_dir) == StageExit.DONE  # how often it is saved is no part of a training
    for name in WEIGHTS:
        assert (run_dir / name).read_bytes() == (undisturbed / name).read_bytes()


def test_a_resume_checkpoint_alone_is_enough_on_another_machine(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
    undisturbed: Path,
) -> None:
    first, second = new_run("first"), new_run("second")
    process = start_stage(first)
    assert until(process, lambda: logged_step(first) >= 33)
    process.kill()
    process.wait()
    source = first / "base/resume_checkpoint"
    source = source if source.exists() else first / "base/resume_checkpoint.previous"
    shutil.copytree(source, second / "base/resume_checkpoint")
    assert finish_stage(second) == StageExit.DONE
    assert_same_end(second, undisturbed)


def test_checkpoint_now_writes_one_without_stopping(
    new_run: Callable[[str], Path], start_stage: Callable[..., ForkedStage]
) -> None:
    run_dir = new_run("asked")
    request = run_dir / "stages/base/checkpoint_now"
    request.parent.mkdir(parents=True)
    request.touch()
    process = start_stage(run_dir, checkpoint_every=1000)
    assert process.wait(timeout=60) == StageExit.DONE
    assert not request.exists()
    steps = [e["data"]["step"] for e in read_events(run_dir) if e["type"] == "checkpoint"]
    assert steps == [0, 60]


def test_a_resume_with_another_setting_is_refused_and_names_it(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
) -> None:
    run_dir = new_run("changed")
    process = start_stage(run_dir)
    assert until(process, lambda: (run_dir / "base/resume_checkpoint").exists())
    process.kill()
    process.wait()
    assert finish_stage(run_dir, learning_rate=0.01) == StageExit.BAD_INPUT
    error = json.loads((run_dir / "stages/base/error.json").read_text())
    assert error["code"] == "fingerprint_mismatch"
    assert "optimizer.learning_rate: the checkpoint has" in error["message"]
    assert "this job has 0.01" in error["message"]


def test_a_stop_while_torch_is_loading_is_an_interruption(
    new_run: Callable[[str], Path], start_stage: Callable[..., subprocess.Popen[bytes]]
) -> None:
    run_dir = new_run("early")
    manifest = run_dir / "stages/base/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    process = start_stage(run_dir, is_program=True)
    assert until(process, lambda: not manifest.exists())  # the first thing that a stage does
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=DEADLINE_SECONDS) == StageExit.INTERRUPTED
    assert not (run_dir / "stages/base/error.json").exists()
