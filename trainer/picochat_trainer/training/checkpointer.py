"""The checkpoints of one training: resume points, the best weights and the kept ones."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from picochat_trainer.context import StageContext
from picochat_trainer.training.checkpoint import (
    LossPoint,
    Metadata,
    TrainingState,
    Weights,
    losses_of,
    save_weights,
)
from picochat_trainer.training.optim import Optimizers
from picochat_trainer.training.resume import BEST_KIND, Training, restore, save_resume_point, weights_of

KEPT_KIND = "kept"


class MeanWeights(Protocol):
    """The running mean of the weights, `training.ema.Ema`."""

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...

    def load(self, tensors: dict[str, Tensor]) -> None: ...


class Checkpointer:
    """Saves and takes up one training. Every rank has one, and all ranks call the same methods in the same order."""

    def __init__(
        self, context: StageContext, training: Training, optimizer: Optimizers, ema: MeanWeights | None
    ) -> None:
        self._context = context
        self._training = training
        self._optimizer = optimizer
        self._ema = ema

    def restore(self) -> tuple[TrainingState, dict[str, Tensor]] | None:
        """Take up the training at its resume checkpoint: its state and the spike guard's tensors, or None."""
        return restore(self._context, self._training, self._optimizer)

    def save(self, state: TrainingState, snapshot: Mapping[str, Tensor]) -> None:
        """Begin a resume checkpoint; returns once the tensors are copied."""
        save_resume_point(self._context, self._training, self._optimizer, state, snapshot)

    def poll(self) -> None:
        """Announce what has been written since the last call, and raise what went wrong; every step, cheap."""

    def wait(self) -> None:
        """Return when nothing is being written any more; announces and raises like `poll`."""

    def save_best(self, point: LossPoint) -> None:
        """Write the weights as they are as the best ones; `point` is what was measured on them."""
        self._save_weights(self._training.best, BEST_KIND, point.step, losses_of(point))

    def save_kept(self, step: int, losses: dict[str, float]) -> None:
        """Write the weights as they are beside the last and the best ones, for good."""
        self._save_weights(f"{_above(self._training.best)}/kept/step-{step:06d}", KEPT_KIND, step, losses)

    def _save_weights(self, name: str, kind: str, step: int, losses: dict[str, float]) -> None:
        if self._context.is_main:
            metadata = Metadata(kind=kind, step=step, losses=losses)
            save_weights(self._context.path(name), self._weights(), metadata)

    def _weights(self) -> Weights:
        weights = weights_of(self._training.model)
        if self._ema is None:
            return weights
        tensors = {**weights.tensors, **self._ema.tensors}
        return Weights(config=weights.config, vocab_size=weights.vocab_size, tensors=tensors)


def _above(name: str) -> str:
    return name.rpartition("/")[0]
