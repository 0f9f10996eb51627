"""torch.compile for training, piece by piece, tried out before the first step so that a failure falls back to eager.

Each block and the head with the loss are compiled on their own: all blocks share one result, so a cold compile takes
15 s instead of 25 (4 layers, 2 cores, measured) and steps are as fast as with the whole model in one piece.

B rows, T tokens, D model dim
"""

from contextlib import AbstractContextManager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training import distributed
from picochat_trainer.training.hardware import autocast


class LossModule(nn.Module):
    """The loss as a forward pass, which is what DDP wraps."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self.model.loss(tokens_BT, targets_BT)


class CompiledLoss(LossModule):
    """The same loss from compiled pieces. The model's blocks stay compiled: see `eager()`."""

    def __init__(self, model: GPT) -> None:
        super().__init__(model)
        # Static shapes: whether a kernel is compiled for one shape or for any must not depend on the order in
        # which batches come, or a resumed run would compute with other kernels than an undisturbed one.
        for block in model.model.layers:
            block.compile(dynamic=False)
        self._head_loss = torch.compile(_head_loss, dynamic=False)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self._head_loss(self.model, self.model.hidden(tokens_BT), targets_BT)


def _head_loss(model: GPT, x_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """What `GPT.loss` does behind the blocks."""
    logits_NV = model.logits(x_BTD).flatten(0, 1).float()
    return F.cross_entropy(logits_NV, targets_BT.flatten(), ignore_index=IGNORE_INDEX)


def eager() -> AbstractContextManager[None]:
    """Inside, compiled modules run as written: validation has other shapes and is not worth compiling for."""
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


def compile_loss(
    module: LossModule, shapes: list[tuple[int, int]], context: StageContext, dtype: torch.dtype | None
) -> tuple[LossModule, bool]:
    """Compile for all `shapes`; return (module to call, whether it is compiled)."""
    context.events.progress(0, 0, "steps", "compiling the model")
    problem = ""
    try:
        compiled = CompiledLoss(module.model)
        for shape in shapes:
            _try_out(compiled, shape, context.device, dtype)
    except Exception as error:  # the compiler's failures have no common base; eager gives the same model
        problem = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    if distributed.any_rank([bool(problem)], context.device)[0]:
        message = f"torch.compile failed, going on without it ({problem or 'on another rank'})"
        context.events.log("warning", message)
        _forget_compiled(module.model)
        return module, False
    return compiled, True


def _try_out(module: LossModule, shape: tuple[int, int], device: str, dtype: torch.dtype | None) -> None:
    """One forward and backward pass on dummy tokens; weights and random states stay as they were."""
    with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
        tokens_BT = torch.zeros(shape, dtype=torch.int64, device=device)
        with autocast(device, dtype):
            loss = module(tokens_BT, tokens_BT)
        loss.backward()
    module.model.zero_grad(set_to_none=True)


def _forget_compiled(model: GPT) -> None:
    for block in model.model.layers:
        block._compiled_call_impl = None  # the public way to undo `Module.compile` does not exist
