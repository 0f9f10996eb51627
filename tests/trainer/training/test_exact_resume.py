"""Everything that a checkpoint must hold, at once: Muon, mean, dropout, a spike, skipped steps, values read late."""

from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_trainer.context import Interrupted
from picochat_trainer.model import GPT
from picochat_trainer.training.checkpoint import ResumePoint, load_resume
from picochat_trainer.training.loop import Trainer
from picochat_trainer.training.reader import BatchSource, StepBatch, WindowReader
from picochat_trainer.training.validation import Validation
from support.trainings import MODEL, VOCAB, base_context, tiny_training

SPIKE, NOT_FINITE = 33, (0, 5, 21)
SETTINGS: dict[str, Any] = {
    "optimizer": "muon",
    "ema_decay": 0.95,
    "loss_spike_rollback": True,
    "grad_accum_steps": 2,
    "device_batch_size": 2,
    "max_steps": 50,
    "eval_every": 7,
    "log_every": 3,
    "checkpoint_every": 4,
    "keep_every": 13,
    "lr_decay": "none",
}


class Counted:
    """Batches of a reader, which know how many were given."""

    def __init__(self, reader: WindowReader) -> None:
        self.reader, self.given = reader, 0

    @property
    def position(self) -> dict[str, int]:
        return {**self.reader.position, "given": self.given}

    def seek(self, position: dict[str, int]) -> None:
        self.given = position["given"]
        self.reader.seek(position)

    def shapes(self) -> list[tuple[int, int]]:
        return self.reader.shapes()

    def next_step(self) -> StepBatch:
        batch = self.reader.next_step()
        self.given += 1
        if self.given - 1 == SPIKE:
            for _, targets in batch.micro_batches:
                targets.fill_(VOCAB - 1)
        return batch


def run(folder: Path, stops: tuple[int, ...], lag: int) -> ResumePoint:
    """Train to the end, stopped and taken up at the steps of `stops`; what the last checkpoint holds."""
    for stop in (*stops, None):
        model = GPT(MODEL.model_copy(update={"dropout": 0.2}), VOCAB)
        model.init_weights(1)
        weight = model.model.norm.weight
        source: list[Counted] = []

        def counted(reader: WindowReader, source: list[Counted] = source) -> BatchSource:
            source.append(Counted(reader))
            return source[0]

        def spoil(gradient: torch.Tensor, source: list[Counted] = source) -> torch.Tensor:
            return gradient * (float("nan") if source[0].given - 1 in NOT_FINITE else 1.0)

        def by_weights(model: GPT) -> Validation:
            return Validation(loss=float(model.model.norm.weight.detach().square().sum()))

        weight.register_hook(spoil)
        context = base_context(folder)
        trainer = Trainer(
            context, tiny_training(model, by_weights, {"one": 1}, wrap=counted, **SETTINGS), lag=lag
        )
        if stop is None:
            trainer.run()
            continue
        while trainer.state.step < stop:
            trainer._step()
        context.stopping = True
        with pytest.raises(Interrupted):
            trainer.run()
    point = load_resume(folder / "base/resume_checkpoint")
    assert point is not None
    return point


@pytest.mark.parametrize("lag", [0, 1])
def test_a_training_that_was_stopped_three_times_ends_with_the_checkpoint_of_one_that_was_not(
    tmp_path: Path, lag: int
) -> None:
    whole, parts = run(tmp_path / "whole", (), lag), run(tmp_path / "parts", (3, 22, 36), lag)
    assert whole.state.rollbacks == (SPIKE,) and whole.state.num_nonfinite_steps == len(NOT_FINITE)
    states = [point.state.model_copy(update={"elapsed_seconds": 0.0}) for point in (whole, parts)]
    assert states[0] == states[1]
    for found, wanted in ((parts.tensors, whole.tensors), (parts.weights.tensors, whole.weights.tensors)):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(value, wanted[name]) for name, value in found.items())
    kept = [sorted((tmp_path / name / "base/kept").iterdir()) for name in ("whole", "parts")]
    assert [p.name for p in kept[0]] == [p.name for p in kept[1]] == [f"step-{n:06d}" for n in (13, 26, 39)]
    for one, other in zip(*kept, strict=True):
        assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
