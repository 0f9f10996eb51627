"""The host reads nothing of the device inside a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_trainer.training.loop import Trainer, train
from support.trainings import base_context, tiny_model, tiny_training, train_losses
from torch.utils._python_dispatch import TorchDispatchMode

# What these do for a device tensor is wait for the device. A bool of a tensor is aten::is_nonzero, which calls the first.
READS = (
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "unique",
    "_to_copy_to_host",
)


class HostReads(TorchDispatchMode):
    """Counts operations whose answer the host must wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in READS:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(patch: pytest.MonkeyPatch) -> Iterator[HostReads]:
    """`tolist` and `numpy` read without an operation."""
    reads = HostReads()
    for name in ("tolist", "numpy"):
        plain = getattr(torch.Tensor, name)

        def spy(tensor: torch.Tensor, *args: Any, name: str = name, plain: Any = plain) -> Any:
            reads.found.append(name)
            return plain(tensor, *args)

        patch.setattr(torch.Tensor, name, spy)
    with reads:
        yield reads


QUIET = {"log_every": 100, "eval_every": 100, "checkpoint_every": 100, "max_steps": 60}


@pytest.mark.parametrize(
    "changes",
    [{}, {"grad_accum_steps": 2, "ema_decay": 0.9}, {"optimizer": "muon"}, {"loss_spike_rollback": True}],
)
def test_a_step_between_log_points_reads_nothing_but_the_values_of_the_step_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    trainer = Trainer(base_context(tmp_path), tiny_training(tiny_model(), **{**QUIET, **changes}), lag=1)
    for _ in range(3):  # the first is logged, and optimizers set up their state
        trainer._step()
    batches = [trainer.feed.next_step() for _ in range(4)]  # on CUDA a thread looks at them, on the CPU
    monkeypatch.setattr(trainer.feed, "next_step", lambda: batches.pop())
    with counted(monkeypatch) as reads:
        for _ in range(4):
            trainer._step()
    assert reads.found == ["tolist"] * 4  # one vector each, a step late


def test_a_value_that_is_read_in_a_step_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(base_context(tmp_path), tiny_training(tiny_model(), **QUIET), lag=1)
    trainer._step()
    with counted(monkeypatch) as reads:
        found = trainer.step.backward(trainer.feed.next_step())
        float(found.loss_share)
        bool(found.values[2] > 0)
    assert [name.split(".")[1] for name in reads.found if "." in name].count("_local_scalar_dense") >= 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_sees_no_synchronising_call_in_a_step(tmp_path: Path) -> None:
    context = base_context(tmp_path)
    context.device = "cuda:0"
    model = tiny_model().to("cuda:0")
    trainer = Trainer(context, tiny_training(model, **QUIET))
    for _ in range(3):
        trainer._step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(4):
            trainer._step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.feed.close()


def test_reading_late_changes_no_number(tmp_path: Path) -> None:
    at_once = train(base_context(tmp_path / "a"), tiny_training(tiny_model()))
    late = Trainer(base_context(tmp_path / "b"), tiny_training(tiny_model()), lag=1).run()
    assert train_losses(late) == train_losses(at_once)
    assert all(torch.equal(value, at_once.weights[name]) for name, value in late.weights.items())
