"""Saving beside training, in one process: what is copied, announced, refused and kept."""

import errno
import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_contract.errors import Code, ContractError
from picochat_trainer.atomic import file_sha256, previous_of
from picochat_trainer.training import checkpoint, resume_writer
from picochat_trainer.training.checkpoint import LossPoint, load_resume, load_weights, open_checkpoint
from support.checkpoints import BEST, RESUME, Small, small, state

FINGERPRINT: dict[str, Any] = {"batch": {"rows_per_step": 4}, "rounding": {"num_ranks": 1}}


@pytest.fixture
def begun(tmp_path: Path) -> Small:
    made = small(tmp_path / "run")
    for number in range(3):
        made.step(number)
    return made


def save(made: Small, step: int, best_step: int | None = None) -> None:
    made.checkpointer.save(
        state(step, FINGERPRINT, best_step), {"losses": torch.zeros(0, dtype=torch.float64)}
    )


def events(made: Small, type: str) -> list[dict[str, Any]]:
    path = made.context.stage_dir / "events.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event["data"] for event in map(json.loads, lines) if event["type"] == type]


class Gate:
    """Holds the writing thread at the beginning of a save until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        real = checkpoint.write_tensors

        def held(*args: Any) -> str:
            self.reached.set()
            assert self.open.wait(60)
            return real(*args)

        monkeypatch.setattr(checkpoint, "write_tensors", held)


def test_it_goes_on_with_equal_bits(begun: Small) -> None:
    save(begun, 3)
    begun.checkpointer.wait()
    again = small(begun.context.run_dir)
    found = again.checkpointer.restore()
    assert found is not None and found[0].step == 3 and found[0].position == {"row": 3}
    assert list(found[1]) == ["losses"]
    for made in (begun, again):
        made.step(3)
    wanted, got = begun.whole(), again.whole()
    assert wanted.keys() == got.keys() and len(wanted) > 40
    assert all(torch.equal(value, got[name]) for name, value in wanted.items())


def test_what_training_does_while_a_save_is_written_is_not_in_it(
    begun: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    before = begun.whole()
    save(begun, 3)
    assert gate.reached.wait(60)
    begun.step(3)
    begun.checkpointer.poll()
    assert events(begun, "checkpoint") == []
    gate.open.set()
    begun.checkpointer.wait()
    point = load_resume(begun.context.path(RESUME))
    assert point is not None
    assert not torch.equal(before["weights.model.norm.weight"], begun.whole()["weights.model.norm.weight"])
    for name, value in point.weights.tensors.items():
        assert torch.equal(value, before[f"weights.{name}"]), name
    assert torch.equal(point.tensors["ema.mean.model.norm.weight"], before["ema.mean.model.norm.weight"])


def test_a_finished_write_is_announced_once_with_all_its_files(begun: Small) -> None:
    begun.checkpointer.save_best(LossPoint(step=3, val_loss=1.0))
    save(begun, 3, best_step=3)
    begun.checkpointer.wait()
    begun.checkpointer.poll()
    [announced] = events(begun, "checkpoint")
    assert (announced["directory"], announced["step"]) == (RESUME, 3)
    files = {file["path"].removeprefix(f"{RESUME}/"): file for file in announced["files"]}
    folder = begun.context.path(RESUME)
    assert set(files) == {path.name for path in folder.iterdir()}
    assert set(files) >= {"best_model.safetensors", "metadata.json", "training_state.json"}
    for name, file in files.items():
        assert file["sha256"] == file_sha256(folder / name)
        assert file["size_bytes"] == (folder / name).stat().st_size


def test_a_second_save_waits_for_the_first(begun: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    save(begun, 3)
    assert gate.reached.wait(60)
    second = threading.Thread(target=save, args=(begun, 4))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    gate.open.set()
    second.join(60)
    begun.checkpointer.wait()
    assert [announced["step"] for announced in events(begun, "checkpoint")] == [3, 4]


def full(*args: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def forbidden(*args: Any) -> Any:
    raise PermissionError(errno.EACCES, "Permission denied", "/some/where")


@pytest.mark.parametrize(
    ("place", "name", "failure", "told"),
    [
        ("checkpoint", "write_tensors", full, "No space left on device"),
        ("checkpoint", "file_sha256", full, "No space left on device"),
        ("atomic", "sync_folder", full, "No space left on device"),
        ("atomic", "begin_folder", forbidden, "Permission denied \\(/some/where\\)"),
    ],
)
def test_a_write_that_fails_is_told_and_leaves_the_one_before_whole(
    begun: Small,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    name: str,
    failure: Callable[..., Any],
    told: str,
) -> None:
    save(begun, 3)
    begun.checkpointer.wait()
    with monkeypatch.context() as patched:
        patched.setattr(
            f"picochat_trainer.{'training.' if place == 'checkpoint' else ''}{place}.{name}", failure
        )
        save(begun, 4)
        with pytest.raises(ContractError, match=told) as caught:
            begun.checkpointer.wait()
    assert caught.value.code == Code.CHECKPOINT_NOT_WRITTEN
    message = caught.value.message
    assert RESUME in message and "bytes, and as much again" in message and "bytes are free there" in message
    point = load_resume(begun.context.path(RESUME))
    assert point is not None and point.fallback is None
    assert point.state.step == 3
    save(begun, 5)  # and it goes on when there is room again
    begun.checkpointer.wait()
    point = load_resume(begun.context.path(RESUME))
    assert point is not None and point.state.step == 5
    assert {path.name for path in begun.context.path("base").iterdir()} == {
        "resume_checkpoint",
        "resume_checkpoint.previous",
    }


def test_failing_weights_are_told_too(begun: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "write_tensors", full)
    begun.checkpointer.save_best(LossPoint(step=3, val_loss=1.0))
    with pytest.raises(ContractError, match="best_checkpoint could not be written"):
        begun.checkpointer.wait()
    assert not begun.context.path(BEST).exists()


@pytest.mark.parametrize("failing", ["best_checkpoint", "kept"])
def test_no_resume_point_counts_weights_that_could_not_be_written(
    begun: Small, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def save_both(step: int) -> None:
        if failing == "kept":
            begun.checkpointer.save_kept(step, {})
        else:
            begun.checkpointer.save_best(LossPoint(step=step, val_loss=1.0))
        save(begun, step, best_step=step if failing == "best_checkpoint" else None)

    real = checkpoint.write_tensors

    def full_for_weights(path: Path, *args: Any) -> str:
        return full() if failing in str(path) else real(path, *args)

    save_both(3)
    begun.checkpointer.wait()
    begun.step(3)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_tensors", full_for_weights)
        with pytest.raises(ContractError, match=f"{failing}.* could not be written"):
            save_both(4)
            begun.checkpointer.wait()
        with pytest.raises(ContractError) as caught:  # from the resume point behind it
            begun.checkpointer.wait()
    assert caught.value.code == Code.CHECKPOINT_NOT_WRITTEN
    point = load_resume(begun.context.path(RESUME))
    assert point is not None and point.state.step == 3


def test_other_errors_of_the_writer_come_out_as_they_are(
    begun: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(resume_writer, "save_resume", broken)
    save(begun, 3)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        begun.checkpointer.wait()


def test_a_corrupt_newest_falls_back_and_is_not_in_the_way_of_the_next(begun: Small) -> None:
    for step in (3, 4):
        save(begun, step)
    begun.checkpointer.wait()
    newest = begun.context.path(RESUME)
    data = bytearray((newest / "training_state.safetensors").read_bytes())
    (newest / "training_state.safetensors").write_bytes(data[:-1])
    again = small(begun.context.run_dir)
    found = again.checkpointer.restore()
    assert found is not None and found[0].step == 3
    messages = [event["message"] for event in events(again, "log")]
    assert any("resume_checkpoint.previous" in m and "training_state.safetensors" in m for m in messages)
    assert not newest.exists() and previous_of(newest).exists()


def test_a_run_folder_that_was_moved_goes_on(begun: Small, tmp_path: Path) -> None:
    begun.checkpointer.save_best(LossPoint(step=3, val_loss=1.0))
    save(begun, 3, best_step=3)
    begun.checkpointer.wait()
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    shutil.move(begun.context.run_dir, moved)
    shutil.rmtree(moved / "base/best_checkpoint")
    found = small(moved).checkpointer.restore()
    assert found is not None and found[0].step == 3
    assert open_checkpoint(moved / "base/best_checkpoint").metadata.step == 3


def test_best_and_kept_weights_are_the_mean(begun: Small) -> None:
    begun.checkpointer.save_best(LossPoint(step=3, val_loss=1.0))
    begun.checkpointer.save_kept(3, {"val_loss": 1.0})
    save(begun, 3)
    begun.checkpointer.wait()
    name = "model.layers.0.mlp.up_proj.weight"
    mean, own = begun.ema.tensors[f"mean.{name}"], begun.model.state_dict()[name]
    assert not torch.equal(mean, own)
    for folder in (BEST, "base/kept/step-000003"):
        assert torch.equal(load_weights(begun.context.path(folder))[2][name], mean)
    point = load_resume(begun.context.path(RESUME))
    assert point is not None and torch.equal(point.weights.tensors[name], own)
    assert torch.equal(point.tensors[f"ema.mean.{name}"], mean)


def test_best_weights_inside_the_mean_are_the_mean_too(begun: Small) -> None:
    with begun.ema.applied():
        begun.checkpointer.save_best(LossPoint(step=3, val_loss=1.0))
    begun.checkpointer.wait()
    name = "model.norm.weight"
    assert torch.equal(load_weights(begun.context.path(BEST))[2][name], begun.ema.tensors[f"mean.{name}"])


def test_kept_weights_are_outputs_and_those_after_the_resumed_step_go(begun: Small) -> None:
    begun.checkpointer.save_kept(2, {})
    save(begun, 3)
    begun.checkpointer.save_kept(4, {"val_loss": 1.5})
    begun.checkpointer.wait()
    assert open_checkpoint(begun.context.path("base/kept/step-000004")).metadata.losses == {"val_loss": 1.5}
    assert begun.context.outputs == ["base/kept/step-000002", "base/kept/step-000004"]
    (begun.context.path("base/kept") / ".step-000006.tmp-1").mkdir()
    again = small(begun.context.run_dir)
    again.checkpointer.restore()
    assert again.context.outputs == ["base/kept/step-000002"]
    assert [path.name for path in again.context.path("base/kept").iterdir()] == ["step-000002"]


def test_a_new_training_does_not_inherit_kept_weights(begun: Small) -> None:
    begun.checkpointer.save_kept(2, {})
    begun.checkpointer.wait()
    again = small(begun.context.run_dir)
    assert again.checkpointer.restore() is None
    assert again.context.outputs == [] and list(again.context.path("base/kept").iterdir()) == []


def test_another_fingerprint_is_refused_and_another_way_of_computing_is_told(begun: Small) -> None:
    save(begun, 3)
    begun.checkpointer.wait()
    with pytest.raises(ContractError, match=r"batch\.rows_per_step: the checkpoint has 4, this job has 8"):
        small(begun.context.run_dir, batch={"rows_per_step": 8}).checkpointer.restore()
    again = small(begun.context.run_dir, rounding={"num_ranks": 2})
    assert again.checkpointer.restore() is not None
    messages = [event["message"] for event in events(again, "log")]
    assert any("num_ranks: the checkpoint has 1, this job has 2" in message for message in messages)


def test_what_it_goes_on_as_is_what_the_next_resume_is_compared_with(begun: Small) -> None:
    save(begun, 3)
    begun.checkpointer.wait()
    again = small(begun.context.run_dir, rounding={"num_ranks": 2})
    found = again.checkpointer.restore()
    assert found is not None and found[0].fingerprint["rounding"] == {"num_ranks": 2}


def test_a_full_disk_of_this_process_is_told(tmp_path: Path, limited_files: Callable[[int], Any]) -> None:
    """A file-size limit of the system, in place of a disk that is full."""
    made = small(tmp_path / "run")
    made.step(0)
    save(made, 1)
    made.checkpointer.wait()
    with limited_files(2000):
        save(made, 2)
        with pytest.raises(ContractError, match="File too large"):
            made.checkpointer.wait()
    point = load_resume(made.context.path(RESUME))
    assert point is not None and point.state.step == 1 and point.fallback is None


@pytest.fixture
def limited_files() -> Callable[[int], Any]:
    @contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
