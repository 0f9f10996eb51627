"""A disk that is really full, at every point of a save: what is told, what is left, and that it goes on with room."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import StageExit
from picochat_trainer.atomic import previous_of
from picochat_trainer.training.checkpoint import load_resume, open_checkpoint
from support.checkpoints import RESUME, Small, small, state
from support.forks import ForkedStage
from support.small_disk import PAGE_BYTES, fill, free_bytes, small_disk
from torch import Tensor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs in a namespace")
FINGERPRINT: dict[str, Any] = {"batch": {"rows_per_step": 4}, "rounding": {"num_ranks": 1}}
MEGABYTE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(2 * MEGABYTE, tmp_path / "disk") as root:
        yield root


def save(made: Small, step: int) -> None:
    made.checkpointer.save(state(step, FINGERPRINT), {})
    made.checkpointer.wait()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def restored(disk: Path) -> dict[str, Tensor]:
    again = small(disk / "run")
    assert again.checkpointer.restore() is not None
    return again.whole()


def same_bits(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_wherever_the_disk_fills_up_the_checkpoint_before_is_whole_and_nothing_is_left_behind(
    disk: Path,
) -> None:
    made = small(disk / "run")
    for step in (1, 2):
        made.step(step)
        save(made, step)
    before, place = made.whole(), made.context.path(RESUME)
    made.step(3)
    for free_pages in range(1_000):
        ballast = fill(disk, free_pages)
        try:
            save(made, 3)
            break
        except ContractError as error:
            assert error.code == Code.CHECKPOINT_NOT_WRITTEN
            told = error.message
        assert f"{place} could not be written: No space left on device" in told
        assert f"{free_pages * PAGE_BYTES:,} bytes are free there" in told and "make room" in told
        assert free_bytes(disk) == free_pages * PAGE_BYTES, "what was begun is gone"
        assert names_in(disk / "run/base") == {place.name, previous_of(place).name}
        assert [open_checkpoint(p).metadata.step for p in (place, previous_of(place))] == [2, 1]
        ballast.unlink()
        assert same_bits(restored(disk), before)
    assert free_pages >= len(names_in(place)), "each of its files did not fit, once"
    assert same_bits(restored(disk), made.whole())


def test_weights_that_fill_the_disk_end_it_and_it_goes_on_when_some_are_removed(disk: Path) -> None:
    made, kept = small(disk / "run"), disk / "run/base/kept"
    with pytest.raises(ContractError, match=r"could not be written: No space left .*make room") as caught:
        for step in range(1, 1_000):
            made.step(step)
            made.checkpointer.save_kept(step, {})
            save(made, step)
    assert caught.value.code == Code.CHECKPOINT_NOT_WRITTEN
    assert all(open_checkpoint(folder).fallback is None for folder in kept.iterdir())
    point = load_resume(made.context.path(RESUME))
    assert point is not None and point.fallback is None
    assert point.state.step == step - 1 and len(names_in(kept)) in (step - 1, step)
    shutil.rmtree(kept)
    again = small(disk / "run")
    assert again.checkpointer.restore() is not None
    again.step(step)
    save(again, step)
    assert same_bits(restored(disk), made.whole())


@pytest.mark.slow
def test_a_stage_whose_disk_fills_up_fails_with_the_reason_and_ends_with_the_same_bytes_when_there_is_room(
    disk: Path,
    prepared_run: Path,
    start_stage: Callable[..., ForkedStage],
    finish_stage: Callable[..., int],
    undisturbed_run: Path,
) -> None:
    run_dir = Path(shutil.copytree(prepared_run, disk / "run"))
    assert start_stage(run_dir, keep_every=1).wait(timeout=120) == StageExit.FAILED
    error = json.loads((run_dir / "stages/base/error.json").read_text())
    assert error["code"] == Code.CHECKPOINT_NOT_WRITTEN and "No space left on device" in error["message"]
    assert not [path for path in run_dir.rglob("*") if ".tmp-" in path.name]
    point = load_resume(run_dir / RESUME)
    assert point is not None and point.fallback is None
    shutil.rmtree(run_dir / "base/kept")
    assert finish_stage(run_dir) == StageExit.DONE
    for name in ("base/checkpoint/model.safetensors", "base/best_checkpoint/model.safetensors"):
        assert (run_dir / name).read_bytes() == (undisturbed_run / name).read_bytes()
