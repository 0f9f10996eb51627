"""torch.compile around the loss, tried out before the first step so that a failure falls back to eager.

B rows, T tokens
"""

from typing import cast

import torch
from torch import Tensor, nn

from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.hardware import autocast


class LossModule(nn.Module):
    """The loss as a forward pass: what DDP and torch.compile wrap."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self.model.loss(tokens_BT, targets_BT)


def compile_loss(
    module: LossModule, shapes: list[tuple[int, int]], context: StageContext, dtype: torch.dtype | None
) -> tuple[nn.Module, bool]:
    """Compile for all `shapes`; return (module to call, whether it is compiled)."""
    context.events.progress(0, 0, "steps", "compiling the model")
    # Static shapes: whether a kernel is compiled for one shape or for any must not depend on the order in which
    # batches come, or a resumed run would compute with other kernels than an undisturbed one.
    compiled: nn.Module = cast(nn.Module, torch.compile(module, dynamic=False))
    problem = ""
    try:
        for shape in shapes:
            _try_out(compiled, module.model, shape, context.device, dtype)
    except Exception as error:  # the compiler's failures have no common base; eager gives the same model
        problem = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        )
    if distributed.any_rank([bool(problem)], context.device)[0]:
        context.events.log(
            "warning", f"torch.compile failed, going on without it ({problem or 'another rank'})"
        )
        return module, False
    return compiled, True


def _try_out(
    compiled: nn.Module, model: GPT, shape: tuple[int, int], device: str, dtype: torch.dtype | None
) -> None:
    """One forward and backward pass on dummy tokens; weights and random states stay as they were."""
    with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
        tokens_BT = torch.zeros(shape, dtype=torch.int64, device=device)
        with autocast(device, dtype):
            loss = compiled(tokens_BT, tokens_BT)
        loss.backward()
    model.zero_grad(set_to_none=True)
