"""Loss spikes: seen against a running mean of the loss, and undone by going back to the last good weights.

A step whose loss is not finite or over `THRESHOLD` times the running mean is a spike. Losses stay on the device and are
looked at together, every `SNAPSHOT_EVERY` steps: one sum over the ranks and one wait for the device. If all were good,
the weights are kept as the new snapshot; if one was a spike, model, optimizer and running mean go back to the old
one, the learning rate is halved, and training goes on with the next batch: those in between are not seen again. All ranks
judge the same sums, so they decide alike. Where spikes go on at the smallest rate, training ends.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.distributed as dist
from picochat_contract.errors import Code, ContractError
from torch import Tensor, nn

from picochat_trainer.training.ema import Ema
from picochat_trainer.training.optim import Optimizers, below, load_optimizer_tensors, optimizer_tensors

THRESHOLD: Final = 2.5
BETA: Final = 0.95
SNAPSHOT_EVERY: Final = 10
"""Steps between checks. A snapshot is a copy of weights and optimizer state on the model's device, and in checkpoints."""
RATE_CUT: Final = 0.5
LEAST_RATE_SCALE: Final = 0.1
WARM_STEPS: Final = 5
"""Steps before the running mean is trusted."""
GOES_ON_STEPS: Final = 10 * SNAPSHOT_EVERY
"""A spike at the smallest rate ends the training if the one before it is not further back than this."""

_WEIGHTS: Final = "weights."
_OPTIMIZER: Final = "optimizer."
_EMA: Final = "ema."
_LOSSES: Final = "losses"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the losses since the last check say."""

    baseline: float | None
    """The running mean behind them, or before the spike."""
    spike_step: int | None = None
    spike_loss: float | None = None


class SpikeGuard:
    """The newest snapshot of one training, and the losses that have come since the last check.

    The numbers that a resume needs lie in `TrainingState`; `saved` is what `tensors` gave for the checkpoint that the
    training goes on from, empty in a new one.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        saved: Mapping[str, Tensor],
        ema: Ema | None = None,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._ema = ema
        self._weights = below(_WEIGHTS, saved)
        self._state = below(_OPTIMIZER, saved)
        self._mean = below(_EMA, saved)
        self._known: list[float] = saved[_LOSSES].tolist() if _LOSSES in saved else []
        self._unread: list[Tensor] = []
        if not saved:
            self.snapshot()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: a resumed training goes back to the same snapshot and judges the same losses. Collective."""
        self._read()
        return (
            {f"{_WEIGHTS}{name}": value for name, value in self._weights.items()}
            | {f"{_OPTIMIZER}{name}": value for name, value in self._state.items()}
            | {f"{_EMA}{name}": value for name, value in self._mean.items()}
            | {_LOSSES: torch.tensor(self._known, dtype=torch.float64)}
        )

    def add(self, loss: Tensor) -> None:
        """Take in this rank's share of the loss of a step, a 0-d tensor; the shares of all ranks add up to the loss."""
        self._unread.append(loss.detach())

    @staticmethod
    def is_due(step: int) -> bool:
        """True where the losses up to that of `step` are to be judged, before its update."""
        return step % SNAPSHOT_EVERY == 0

    def judge(self, step: int, baseline: float | None) -> Judgement:
        """Judge the losses since the last check, that of `step` being the last; keep a snapshot or go back to it.

        Collective. After a spike the caller leaves the update of this step out.
        """
        self._read()
        found = judgement(self._known, baseline, step + 1 - len(self._known))
        self._known = []
        if found.spike_step is None:
            self.snapshot()
        else:
            self.roll_back()
        return found

    def snapshot(self) -> None:
        """Keep weights, optimizer and running mean as they are now, in the memory of the snapshot before."""
        self._weights = _copied(self._model.state_dict(), self._weights)
        self._state = _copied(optimizer_tensors(self._optimizer, self._model), self._state)
        if self._ema is not None:
            self._mean = _copied(self._ema.tensors, self._mean)

    def roll_back(self) -> None:
        """Put the newest snapshot back."""
        self._model.load_state_dict(self._weights)
        load_optimizer_tensors(self._optimizer, self._model, self._state)
        if self._ema is not None:
            self._ema.load(self._mean)

    def _read(self) -> None:
        if not self._unread:
            return
        losses = torch.stack([loss.to(torch.float64) for loss in self._unread])
        if dist.is_initialized():
            dist.all_reduce(losses)
        self._known += losses.tolist()
        self._unread = []


@torch.no_grad()
def _copied(tensors: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of `tensors`. Those of `before` that lie on the same device are written over: two snapshots at once would
    take 8 bytes per parameter that no estimate counts."""
    copies = {}
    for name, tensor in tensors.items():
        old = before.get(name)
        is_alike = old is not None and (old.device, old.shape, old.dtype) == (
            tensor.device,
            tensor.shape,
            tensor.dtype,
        )
        copies[name] = old.copy_(tensor) if old is not None and is_alike else tensor.detach().clone()
    return copies


def judgement(losses: Sequence[float], baseline: float | None, first_step: int) -> Judgement:
    """Find the first spike in the losses of the steps from `first_step` on; `baseline` is the running mean before."""
    for step, loss in enumerate(losses, first_step):
        if is_spike(loss, baseline, step):
            return Judgement(baseline=baseline, spike_step=step, spike_loss=loss)
        baseline = next_baseline(baseline, loss)
    return Judgement(baseline=baseline)


def is_spike(loss: float, baseline: float | None, step: int) -> bool:
    """`baseline` is the running mean, None before the first step."""
    if not math.isfinite(loss):
        return True
    return baseline is not None and step >= WARM_STEPS and loss > THRESHOLD * baseline


def next_baseline(baseline: float | None, loss: float) -> float:
    return loss if baseline is None else BETA * baseline + (1 - BETA) * loss


def next_rate_scale(scale: float) -> float:
    return max(LEAST_RATE_SCALE, scale * RATE_CUT)


def rate_scale_after(step: int, scale: float, rollbacks: Sequence[int]) -> float:
    """The rate scale after a spike at `step`; `rollbacks` are the steps of the spikes before it.

    Raises ContractError where the rate is at its smallest already and spikes go on.
    """
    if scale <= LEAST_RATE_SCALE and rollbacks and step - rollbacks[-1] <= GOES_ON_STEPS:
        raise ContractError(
            Code.INVALID_VALUE,
            f"the loss jumped at step {step} and {len(rollbacks)} times before it, last at step {rollbacks[-1]}, though "
            f"the learning rate is down to {scale:g} of what was asked for; lower base.learning_rate, raise "
            "base.warmup_steps, or look at the training text around those steps",
            param="learning_rate",
        )
    return next_rate_scale(scale)
