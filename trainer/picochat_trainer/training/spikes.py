"""Loss spikes: seen against a running mean of the loss, and undone by going back to the last good weights.

A step whose loss is not finite or over `THRESHOLD` times the running mean is a spike. The weights and the optimizer go
back to the newest snapshot, the learning rate is halved, and training goes on with the next batch: the one that did it
is not seen again. One process only: ranks would have to agree first.
"""

import math
from collections.abc import Mapping
from typing import Final

from picochat_contract.errors import Code, ContractError
from torch import Tensor, nn

from picochat_trainer.training.optim import Optimizers, below, load_optimizer_tensors, optimizer_tensors

THRESHOLD: Final = 2.5
BETA: Final = 0.95
SNAPSHOT_EVERY: Final = 10
"""Steps between snapshots; each is a copy of weights and optimizer state on the model's device, and in checkpoints."""
RATE_CUT: Final = 0.5
LEAST_RATE_SCALE: Final = 0.1
WARM_STEPS: Final = 5
"""Steps before the running mean is trusted."""

_WEIGHTS: Final = "weights."
_OPTIMIZER: Final = "optimizer."


class SpikeGuard:
    """The newest snapshot of one training. The numbers that a resume needs lie in `TrainingState`.

    `saved` is the snapshot of the checkpoint that the training goes on from, as `tensors` gave it; empty in a new one.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizers, *, world_size: int, saved: Mapping[str, Tensor]
    ) -> None:
        if world_size > 1:
            raise ContractError(
                Code.INVALID_VALUE,
                f"base.loss_spike_rollback works in one process only, this run has {world_size}; set it to false, or "
                "resources.nproc_per_node to 1",
                param="loss_spike_rollback",
            )
        self._model = model
        self._optimizer = optimizer
        self._weights = below(_WEIGHTS, saved)
        self._state = below(_OPTIMIZER, saved)
        if not saved:
            self.snapshot()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The snapshot, for a checkpoint: a resumed training must go back to the same one, not to what it began with."""
        weights = {f"{_WEIGHTS}{name}": value for name, value in self._weights.items()}
        return weights | {f"{_OPTIMIZER}{name}": value for name, value in self._state.items()}

    def snapshot(self) -> None:
        """Keep the weights and the optimizer as they are now."""
        self._weights = {name: value.clone() for name, value in self._model.state_dict().items()}
        tensors = optimizer_tensors(self._optimizer, self._model)
        self._state = {name: value.clone() for name, value in tensors.items()}

    def roll_back(self) -> None:
        """Put the newest snapshot back."""
        self._model.load_state_dict(self._weights)
        load_optimizer_tensors(self._optimizer, self._model, self._state)


def is_spike(loss: float, baseline: float | None, step: int) -> bool:
    """`baseline` is the running mean, None before the first step."""
    if not math.isfinite(loss):
        return True
    return baseline is not None and step >= WARM_STEPS and loss > THRESHOLD * baseline


def next_baseline(baseline: float | None, loss: float) -> float:
    return loss if baseline is None else BETA * baseline + (1 - BETA) * loss


def next_rate_scale(scale: float) -> float:
    return max(LEAST_RATE_SCALE, scale * RATE_CUT)
