"""Values of steps on their way from the device to the host: at once where that costs nothing, else one step late.

Reading a value of the step in progress would stop the host until the device has caught up, and then the device until
the host has launched more. The values of the step before are there already, or soon: the device has work queued
behind them.
"""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """What a step found, summed or equal over all ranks."""

    step: int
    """Counted from 0."""
    loss: float
    """Mean over the targets of the global step, nats."""
    grad_norm: float
    is_finite: bool
    """False: the update was skipped."""


class Readback:
    """The queue between; `lag` is the number of steps that values may stay on the device, by default 0 on the CPU and
    else 1."""

    def __init__(self, device: str, lag: int | None = None) -> None:
        self._lag = (0 if device == "cpu" else 1) if lag is None else lag
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def push(self, step: int, values: Tensor) -> None:
        """Take the values of `step` as `pack` put them together; nothing is waited for."""
        if values.device.type != "cuda":
            self._pending.append((step, values, None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        self._pending.append((step, host, torch.cuda.current_stream(values.device).record_event()))

    def take(self, *, everything: bool) -> list[StepValues]:
        """Values of steps that are old enough, in order; of all steps where `everything`."""
        found = []
        while len(self._pending) > (0 if everything else self._lag):
            step, values, event = self._pending.popleft()
            if event is not None:
                event.synchronize()
            found.append(_unpack(step, values))
        return found


def pack(loss_share: Tensor, grad_norm: Tensor, num_ranks: int) -> Tensor:
    """One float64 vector whose sum over ranks `Readback` takes; `grad_norm` is equal on all."""
    skipped = ~(torch.isfinite(loss_share) & torch.isfinite(grad_norm))
    return torch.stack((loss_share.double(), grad_norm.double() / num_ranks, skipped.double()))


def skips(values: Tensor) -> Tensor:
    """0-d, nonzero where the update must not happen."""
    return values[2]


def _unpack(step: int, values: Tensor) -> StepValues:
    loss, grad_norm, skipped = values.tolist()
    return StepValues(step=step, loss=loss, grad_norm=grad_norm, is_finite=not skipped)
