"""A running mean of the weights, which is often better than the weights it is made of (Polyak averaging).

It begins at the first weights, and its decay rises with the number of updates t as min(decay, (1 + t) / (10 + t)), so
that a short training is not held back by its beginning (`tf.train.ExponentialMovingAverage`). Every rank holds the mean
of its own part of the weights; there is nothing to communicate.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

_MEAN = "mean."
_NUM_UPDATES = "num_updates"


class Ema:
    """The mean of all trainable parameters of `model`, in float32; make it after the model is sharded."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._means = {name: p.detach().float().clone() for name, p in self._parameters.items()}
        self._num_updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now; call it after each optimizer step."""
        self._num_updates += 1
        decay = min(self._decay, (1 + self._num_updates) / (10 + self._num_updates))
        torch._foreach_lerp_(_local(self._means), [p.float() for p in _local(self._parameters)], 1 - decay)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state, for a checkpoint: `mean.<parameter>`, placed as the parameter is, and `num_updates`."""
        means: dict[str, Tensor] = {f"{_MEAN}{name}": mean for name, mean in self._means.items()}
        return means | {_NUM_UPDATES: torch.tensor(self._num_updates)}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave; the next update is then the one that would have followed."""
        for name, mean in self._means.items():
            mean.copy_(tensors[f"{_MEAN}{name}"])
        self._num_updates = int(tensors[_NUM_UPDATES])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the mean for its weights; behind, its own again, bit for bit, whatever happened."""
        kept = [p.clone() for p in _local(self._parameters)]
        self._put(_local(self._means))
        try:
            yield
        finally:
            self._put(kept)

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(_local(self._parameters), values)
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # else it might go on with whole weights gathered before


def _local(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """This rank's part of each tensor, sharing its memory."""
    return [(t.to_local() if isinstance(t, DTensor) else t).detach() for t in tensors.values()]
