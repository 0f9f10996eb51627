"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before they are taken off the weights.

The update is scaled to the root mean square of an AdamW update, 0.2 (Moonlight, arXiv 2502.16982), so that AdamW's
learning rate and decay serve both. Matrices of one shape are orthogonalised as one stack. With several ranks each
matrix has one owner, which alone orthogonalises it; owners are chosen so that all ranks have the same work.
Momentum stays beside its parameter, a DTensor where that is one.

M rows, N columns
"""

import math
import warnings
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from picochat_trainer.training.muon_sharing import sharing_of
from picochat_trainer.training.orthogonal import (
    POLAR_EXPRESS,
    Polynomials,
    orthogonalize_all,
    product_dtype,
)

MOMENTUM = 0.95
ADAMW_RMS = 0.2
"""Root mean square of what AdamW takes off a weight, in learning rates (arXiv 2502.16982, section 2.2)."""
_SLOT = "momentum_buffer"


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = MOMENTUM,
        polynomials: Polynomials = POLAR_EXPRESS,
        dtype: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        """`dtype` is that of the products, None for the fastest one of the device; `compiled` uses torch.compile."""
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._parameters = cast(list[nn.Parameter], self.param_groups[0]["params"])
        self._polynomials = polynomials
        self._dtype = dtype or product_dtype(self._parameters[0].device)
        self._sharing = sharing_of(self._parameters, self._dtype)
        self.compiled = compiled
        self.num_orthogonalized = 0
        """Matrices that this rank has orthogonalised so far."""

    def step(self, closure: Any = None) -> Any:
        """Update all parameters; there is no closure."""
        assert closure is None
        self.update(None)

    @torch.no_grad()
    def update(self, skip: Tensor | None) -> None:
        """Update all parameters, or leave them and the momentum as they are where `skip` (0-d, on the device) is not 0.

        The gradients of a skipped step are written over.
        """
        group = self.param_groups[0]
        updates = self._momentum_updates(group["momentum"], skip)
        matrices = self._sharing.whole([update.to(self._dtype) for update in updates])
        self.num_orthogonalized += len(matrices)
        done = self._orthogonalize(matrices)
        steps = [part.to(torch.float32) for part in self._sharing.parts(done)]
        decay, rate = 1 - group["lr"] * group["weight_decay"], -group["lr"]
        weights = [_local(p) for p in self._parameters]
        # Decay and rate are then numbers on the device; both ways round alike.
        torch._foreach_mul_(weights, decay if skip is None else torch.where(skip != 0, 1.0, decay))
        torch._foreach_mul_(steps, [ADAMW_RMS * math.sqrt(max(p.shape)) for p in self._parameters])
        torch._foreach_mul_(steps, rate if skip is None else torch.where(skip != 0, 0.0, rate))
        torch._foreach_add_(weights, steps)

    def _momentum_updates(self, momentum: float, skip: Tensor | None) -> list[Tensor]:
        """Take the gradients into the momentum; return what Nesterov makes of those that this rank sends or keeps."""
        buffers = [_local(self._buffer(p)) for p in self._parameters]
        gradients = [_local(_gradient(p)) for p in self._parameters]
        if skip is not None:
            # A gradient that equals the momentum leaves it as it is, to the bit, and is finite. In place: copies would
            # take 4 bytes per parameter.
            is_skipped = skip != 0
            for buffer, gradient in zip(buffers, gradients, strict=True):
                torch.where(is_skipped, buffer, gradient, out=gradient)
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        wanted = self._sharing.wanted
        if not wanted:
            return []
        return list(
            torch._foreach_lerp([gradients[i] for i in wanted], [buffers[i] for i in wanted], momentum)
        )

    def _orthogonalize(self, matrices: list[Tensor]) -> list[Tensor]:
        if self.compiled:
            try:
                return orthogonalize_all(matrices, self._polynomials, compiled=True)
            except Exception as error:  # the compiler's failures have no common base
                warnings.warn(f"Muon goes on without torch.compile: {type(error).__name__}", stacklevel=2)
                self.compiled = False
        return orthogonalize_all(matrices, self._polynomials, compiled=False)

    def _buffer(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state[_SLOT] = torch.zeros_like(parameter)
        return cast(Tensor, state[_SLOT])


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError(
            f"Muon needs a gradient for each of its matrices, one of shape {tuple(parameter.shape)} has none; call "
            "backward() first, and leave frozen parameters out"
        )
    return parameter.grad


def _local(tensor: Tensor) -> Tensor:
    """This rank's part, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
