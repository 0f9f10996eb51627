"""One optimizer step: forward and backward over micro-batches, clip, update. The host reads nothing of the device here."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from picochat_contract.configs import OptimConfig
from torch import Tensor, nn

from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.ema import Ema
from picochat_trainer.training.hardware import autocast
from picochat_trainer.training.optim import Optimizers
from picochat_trainer.training.prefetch import DeviceStep
from picochat_trainer.training.readback import pack, skips


@dataclass(frozen=True, kw_only=True)
class StepTensors:
    """What a backward pass found, on the device."""

    values: Tensor
    """Loss, gradient norm and whether the update is to be skipped, over all ranks: what `Readback` takes."""
    loss_share: Tensor
    """0-d: this rank's share of the loss."""


class TrainStep:
    """`backward` fills the gradients and says what it found; `update` then changes the weights, or not."""

    def __init__(
        self,
        context: StageContext,
        config: OptimConfig,
        model: GPT,
        loss_module: nn.Module,
        optimizer: Optimizers,
        ema: Ema | None,
        dtype: torch.dtype | None,
    ) -> None:
        self._device = context.device
        self._num_ranks = context.world_size
        self._grad_clip = config.grad_clip
        self._model = model
        self._loss_module = loss_module
        self._optimizer = optimizer
        self._ema = ema
        self._dtype = dtype

    def backward(self, step: DeviceStep) -> StepTensors:
        """Accumulate and clip the gradients of the mean loss over the global step."""
        loss = torch.zeros((), device=self._device)
        last = len(step.micro_batches) - 1
        for index, micro in enumerate(step.micro_batches):
            with distributed.accumulating(self._loss_module, is_last=index == last):
                with autocast(self._device, self._dtype):
                    mean = self._loss_module(micro.tokens, micro.targets)
                share = mean * micro.share
                # Gradients are averaged over ranks, so each rank counts as often as there are ranks.
                (share * self._num_ranks).backward()
                loss += share.detach()
        grad_norm = distributed.clip(self._model, self._grad_clip)
        values = pack(loss, grad_norm, self._num_ranks)
        if dist.is_initialized():
            dist.all_reduce(values)
        return StepTensors(values=values, loss_share=loss)

    def update(self, values: Tensor) -> None:
        """Step the optimizer, unless `values` has found something that is not finite."""
        self._optimizer.step(skip=skips(values))
        if self._ema is not None:
            self._ema.update()
        self.forget()

    def forget(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad()
