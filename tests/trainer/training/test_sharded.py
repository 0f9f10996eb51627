"""Checkpoints of two ranks that share the weights out, read by two, and by one; and of one, read by two."""

import errno
import json
import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from picochat_contract.errors import ContractError
from picochat_contract.exit_codes import StageExit
from picochat_trainer.training import resume_writer
from picochat_trainer.training.checkpoint import LossPoint, load_resume, load_weights, open_checkpoint
from picochat_trainer.training.sharded import placement_of, split_parts
from picochat_trainer.training.tensor_files import size_of
from safetensors import safe_open
from support.allocations import Allocations
from support.checkpoints import BEST, RESUME, Small, small, state
from support.forks import run_ranks
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

FINGERPRINT: dict[str, Any] = {"batch": {"rows_per_step": 4}, "rounding": {"num_ranks": 2}}
SNAPSHOT = "weights.model.norm.weight"
LOSS_TOLERANCE = 1e-4
"""Of losses of two ranks beside those of one process: sums are made in another order."""


@dataclass
class Found:
    """What one rank has seen."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Whole tensors of the training, by when."""
    errors: list[str] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    """At which step a training was taken up, by from what."""
    empty_parts: int = 0
    snapshot_rows: int = 0
    logs: list[str] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    """Bytes held at a time, beside its own parts, while a resume checkpoint was read, by from what."""
    whole: dict[str, int] = field(default_factory=dict)
    """Bytes of the parts of the other rank in it."""
    most_whole: int = 0
    """Tensors that were whole on this rank at a time while the best weights were saved."""


def save(made: Small, step: int, best_step: int | None = None) -> None:
    """With a snapshot as the spike guard's: it lies as the parameter does."""
    snapshot = {SNAPSHOT: made.model.state_dict()["model.norm.weight"].detach().clone()}
    made.checkpointer.save(state(step, FINGERPRINT, best_step), snapshot)
    made.checkpointer.wait()


def work(rank: int, num_ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", num_ranks)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=num_ranks)
    torch.save(vars(on_rank(Path(folder), rank, num_ranks)), f"{folder}/{rank}.pt")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads sometimes abort a normal exit


def most_whole(save: Callable[[], None]) -> int:
    """How many whole tensors there are at most, of those that `save` puts together."""
    seen: list[weakref.ref[Tensor]] = []
    most, real = 0, DTensor.full_tensor

    def counted(tensor: DTensor) -> Tensor:
        nonlocal most
        whole = real(tensor)
        seen.append(weakref.ref(whole))
        most = max(most, sum(reference() is not None for reference in seen))
        return whole

    DTensor.full_tensor = counted  # type: ignore[method-assign,assignment]
    try:
        save()
    finally:
        DTensor.full_tensor = real  # type: ignore[method-assign]
    return most


def on_rank(folder: Path, rank: int, num_ranks: int) -> Found:
    found = Found()

    def make(run: str) -> Small:
        return small(folder / run, rank=rank, num_ranks=num_ranks, strategy="fsdp")

    # Sharded to sharded.
    made = make("two")
    for number in range(2):
        made.step(number, rank, num_ranks)
    found.most_whole = most_whole(lambda: made.checkpointer.save_best(LossPoint(step=2, val_loss=1.0)))
    save(made, 2, best_step=2)
    found.tensors["at 2"] = made.whole()
    made.step(2, rank, num_ranks)
    save(made, 3, best_step=2)
    found.tensors["at 3"] = made.whole()
    made.step(3, rank, num_ranks)
    found.tensors["at 4"] = made.whole()
    again = make("two")
    taken_up = again.checkpointer.restore()
    assert taken_up is not None
    found.steps["two"] = taken_up[0].step
    found.snapshot_rows = taken_up[1][SNAPSHOT].to_local().shape[0]  # type: ignore[attr-defined]
    again.step(3, rank, num_ranks)
    found.tensors["resumed, at 4"] = again.whole()

    # A rank that cannot write: none goes on.
    if rank == 1:
        real, resume_writer.write_shard = resume_writer.write_shard, full
    try:
        save(again, 4)
    except ContractError as error:
        found.errors.append(error.message)
    if rank == 1:
        resume_writer.write_shard = real

    # A byte of the other rank's shard is wrong: all go back to the one before.
    dist.barrier()
    if rank == 0:
        shard = folder / "two" / RESUME / "shards/shard-00001-of-00002.safetensors"
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    dist.barrier()
    taken_up = make("two").checkpointer.restore()
    assert taken_up is not None
    found.steps["corrupt"] = taken_up[0].step

    # Whole, by one process, to sharded.
    taken = make("one")
    for run in ("one", "two"):
        with Allocations() as reading:
            point = load_resume(folder / run / RESUME, placement_of(taken.model))
        assert point is not None
        read = {**point.weights.tensors, **{f"state {name}": t for name, t in point.tensors.items()}}
        own = size_of({name: t.to_local() if isinstance(t, DTensor) else t for name, t in read.items()})
        found.read[run] = reading.most - own
        found.whole[run] = size_of(read) - own
    taken_up = taken.checkpointer.restore()
    assert taken_up is not None
    found.steps["one"] = taken_up[0].step
    found.tensors["one"] = taken.whole()

    # More ranks than rows: a rank without a part writes nothing of it.
    mesh = init_device_mesh("cpu", (num_ranks,))
    parts, offsets, whole = split_parts({"row": distribute_tensor(torch.ones(1, 4), mesh, [Shard(0)])})
    assert parts.keys() == offsets.keys() and not whole
    found.empty_parts = 1 - len(parts)
    return found


def full(*args: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """A training of one process, saved, in the folder that the ranks find too."""
    made = small(tmp_path_factory.mktemp("ranks") / "one")
    for number in range(3):
        made.step(number)
    save(made, 3)
    return made


@pytest.fixture(scope="module")
def folder(one: Small) -> Path:
    return one.context.run_dir.parent


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[Found]:
    run_ranks(work, (2, str(folder)), 2)
    return [Found(**torch.load(folder / f"{rank}.pt")) for rank in range(2)]


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(found[name], value), name


def test_two_ranks_go_on_from_their_shards_with_equal_bits(ranks: list[Found]) -> None:
    for found in ranks:
        assert found.steps["two"] == 3
        assert_equal(found.tensors["resumed, at 4"], found.tensors["at 4"])
        assert not torch.equal(
            found.tensors["at 4"]["weights.model.norm.weight"],
            found.tensors["at 3"]["weights.model.norm.weight"],
        )
        assert found.snapshot_rows == 6  # of 12: what was a part comes back as one


def test_one_process_goes_on_from_the_shards_of_two(ranks: list[Found], folder: Path) -> None:
    # Its newest checkpoint has been damaged: the one before is taken, that of step 2.
    made = small(folder / "two")
    taken_up = made.checkpointer.restore()
    assert taken_up is not None and taken_up[0].step == 2
    assert_equal(made.whole(), ranks[0].tensors["at 2"])
    lines = (made.context.stage_dir / "events.jsonl").read_text()
    assert "num_ranks: the checkpoint has 2, this job has 1" in lines


def test_two_ranks_go_on_from_the_whole_checkpoint_of_one(ranks: list[Found], one: Small) -> None:
    for found in ranks:
        assert found.steps["one"] == 3
        assert_equal(found.tensors["one"], one.whole())


def test_each_rank_writes_its_parts_and_metadata_has_all_digests(ranks: list[Found], folder: Path) -> None:
    opened = open_checkpoint(folder / "two" / RESUME)
    shards = [f"shards/shard-0000{rank}-of-00002.safetensors" for rank in range(2)]
    assert opened.metadata.files.keys() == {
        *shards,
        "best_model.safetensors",
        "config.json",
        "training_state.json",
        "training_state.safetensors",
    }
    files = {
        path.relative_to(opened.directory).as_posix()
        for path in opened.directory.rglob("*")
        if path.is_file()
    }
    assert files == {*opened.metadata.files, "metadata.json"}
    rows = []
    for shard in shards:
        with safe_open(opened.directory / shard, framework="pt") as file:
            rows.append(file.get_slice("weights.model.embed_tokens.weight").get_shape()[0])
    assert rows == [16, 15]


def test_the_best_weights_of_ranks_are_one_file_of_whole_tensors(ranks: list[Found], folder: Path) -> None:
    tensors = load_weights(folder / "two" / BEST)[2]
    for name, tensor in tensors.items():
        assert torch.equal(tensor, ranks[0].tensors["at 2"].get(f"ema.mean.{name}", tensor)), name
    assert "model.embed_tokens.weight" in tensors
    point = load_resume(folder / "two" / RESUME)
    assert point is not None and point.weights.tensors.keys() == tensors.keys()


def test_a_rank_that_writes_no_weights_holds_no_more_than_two_whole_tensors(ranks: list[Found]) -> None:
    """The one that it gets and the one before it."""
    assert 1 <= ranks[1].most_whole <= 2


@pytest.mark.parametrize("run", ["one", "two"])
def test_a_rank_that_resumes_holds_no_more_than_its_parts_and_two_parameters(
    ranks: list[Found], one: Small, run: str
) -> None:
    largest = max(parameter.nbytes for parameter in one.model.parameters())
    for found in ranks:
        assert found.read[run] <= 2 * largest < found.whole[run] / 2


def test_where_one_rank_cannot_write_all_learn_it(ranks: list[Found], folder: Path) -> None:
    assert ranks[0].errors == ranks[1].errors
    assert "No space left on device" in ranks[0].errors[0]
    assert list((folder / "two/base").glob(".*")) == []


def test_a_byte_of_one_shard_sends_all_ranks_to_the_checkpoint_before(ranks: list[Found]) -> None:
    assert [found.steps["corrupt"] for found in ranks] == [2, 2]


def test_a_rank_without_rows_has_no_part(ranks: list[Found]) -> None:
    assert [found.empty_parts for found in ranks] == [0, 1]


def test_a_dry_run_of_two_ranks_goes_on_in_one_process(
    new_run: Callable[[str], Path], finish_stage: Callable[..., int]
) -> None:
    one, two = new_run("one"), new_run("two")
    settings = {"max_steps": 12, "precision": "float32", "ema_decay": 0.9, "optimizer": "muon"}
    assert finish_stage(one, device_batch_size=4, **settings) == StageExit.DONE
    dry = {"nproc": 2, "strategy": "fsdp", "device_batch_size": 2, "stop_after_steps": 7}
    assert finish_stage(two, **dry, **settings) == StageExit.DONE
    assert len(list((two / RESUME / "shards").iterdir())) == 2
    assert finish_stage(two, device_batch_size=4, **settings) == StageExit.DONE
    log = (two / "stages/base/events.jsonl").read_text()
    assert "resumed from step 7" in log
    assert "device_batch_size: the checkpoint has 2, this job has 4" in log
    assert losses(two) == pytest.approx(losses(one), abs=LOSS_TOLERANCE)


def losses(run_dir: Path) -> list[float]:
    points = json.loads((run_dir / "base/train_report.json").read_text())["losses"]
    assert [point["step"] for point in points] == list(range(1, 13))
    return [value for point in points for value in (point["train_loss"], point.get("val_loss", 0.0))]
