"""What is left when a training is killed, or its disk fills up, in the middle of a save."""

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from picochat_contract.errors import Code
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import Manifest
from picochat_trainer.training.checkpoint import LossPoint, load_resume
from support.checkpoints import RESUME, Small, small, state
from support.forks import ForkedStage
from torch import Tensor

KILLS = 10
SEED = 20_260_102
DEADLINE_SECONDS = 120
FINGERPRINT = {"batch": {"rows_per_step": 4}, "rounding": {"num_ranks": 1}}


def save(made: Small, step: int) -> None:
    made.checkpointer.save_best(LossPoint(step=step, val_loss=1.0))
    made.checkpointer.save(state(step, FINGERPRINT, best_step=step), {})


def train_until_killed(run_dir: Path) -> None:
    """Save at every step, and take the next one while that is being written."""
    made = small(run_dir)
    found = made.checkpointer.restore()
    step = found[0].step if found else 0
    while True:
        made.step(step)
        step += 1
        save(made, step)
        made.checkpointer.poll()


def reference(num_steps: int, run_dir: Path) -> list[dict[str, Tensor]]:
    """What an undisturbed training has after each step."""
    made = small(run_dir)
    found = []
    for step in range(num_steps):
        made.step(step)
        found.append(made.whole())
    return found


def temporary_folders(run_dir: Path) -> list[str]:
    base = run_dir / "base"
    return [name for name in os.listdir(base) if ".tmp-" in name] if base.exists() else []


def wait_for_another(metadata: Path) -> None:
    """Return when a checkpoint has taken the place of the one that is there now."""

    def stamp() -> int:
        try:
            return metadata.stat().st_mtime_ns
        except FileNotFoundError:  # between the two renames
            return 0

    before = stamp()
    until(lambda: stamp() not in (0, before))


def until(condition: Callable[[], bool], process: ForkedStage | None = None) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process that has loaded torch")
def test_killed_at_any_moment_of_saving_there_is_a_whole_checkpoint_with_equal_bits(tmp_path: Path) -> None:
    run_dir, rng = tmp_path / "run", random.Random(SEED)
    steps, torn = [], 0
    for _ in range(KILLS):
        before = steps[-1] if steps else 0
        child = os.fork()
        if child == 0:
            try:
                train_until_killed(run_dir)
            finally:
                os._exit(3)  # it never ends by itself
        wait_for_another(run_dir / RESUME / "metadata.json")
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        torn += bool(temporary_folders(run_dir))
        point = load_resume(run_dir / RESUME)
        assert point is not None and point.state.step > before
        steps.append(point.state.step)
    assert torn >= KILLS // 3, "most kills were to hit a save"
    made = small(run_dir)
    taken_up = made.checkpointer.restore()
    assert taken_up is not None and temporary_folders(run_dir) == []
    wanted = reference(steps[-1], tmp_path / "undisturbed")[-1]
    found = made.whole()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.skipif(sys.platform != "linux", reason="limits the files of another process")
def test_a_disk_that_fills_up_ends_the_stage_and_it_goes_on_when_there_is_room(
    new_run: Callable[[str], Path],
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
    undisturbed_run: Path,
) -> None:
    run_dir = new_run("full")
    process = start_stage(run_dir)
    tensors = run_dir / "base/resume_checkpoint/training_state.safetensors"
    until(tensors.exists, process)
    size = tensors.stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size - 1, size - 1))  # type: ignore[attr-defined]
    assert process.wait(timeout=DEADLINE_SECONDS) == StageExit.FAILED
    error = json.loads((run_dir / "stages/base/error.json").read_text())
    assert error["code"] == Code.CHECKPOINT_NOT_WRITTEN
    assert "resume_checkpoint could not be written: File too large" in error["message"]
    point = load_resume(run_dir / RESUME)
    assert point is not None and point.fallback is None
    assert finish_stage(run_dir, keep_every=25) == StageExit.DONE
    manifest = Manifest.model_validate_json((run_dir / "stages/base/manifest.json").read_bytes())
    kept = {output.path for output in manifest.outputs if output.path.startswith("base/kept/")}
    assert {path.split("/")[2] for path in kept} == {"step-000025", "step-000050"}
    for name in ("base/checkpoint/model.safetensors", "base/best_checkpoint/model.safetensors"):
        assert (run_dir / name).read_bytes() == (undisturbed_run / name).read_bytes()
