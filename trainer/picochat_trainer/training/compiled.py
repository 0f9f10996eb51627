"""torch.compile for training, piece by piece, tried out before the first step so that a failure falls back to eager.

Each block and the head with the loss are compiled on their own: all blocks share one result, so a cold compile takes
15 s instead of 25 (4 layers, 2 cores, measured) and steps are as fast as with the whole model in one piece. What is between
the pieces stays as it is written: gathering and freeing of sharded weights, the second pass of gradient checkpointing, the
masks of a micro-batch, the loop over the chunks of a loss. So they are tried out without what is between: one block and
the head, on one rank alone.

B rows, T tokens
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor, nn

from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import Block, BlockBody, block_body
from picochat_trainer.model.loss import HeadLoss, chunk_step, whole_loss
from picochat_trainer.training import distributed
from picochat_trainer.training.hardware import autocast

P = ParamSpec("P")
R = TypeVar("R")
CompilerOptions = dict[str, str | int | bool | Callable[..., Any]]
# The CPU has what PyTorch takes it to have, AVX-512 say: finding out that the compiler knows it too takes 6 s.
INDUCTOR_OPTIONS: CompilerOptions = {"cpp.vec_isa_ok": True}

KERNEL_OF_NOTHING = 'extern "C" void kernel(long) {}'


class LossModule(nn.Module):
    """The loss as a forward pass, which is what DDP wraps."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        return self.model.loss(tokens_BT, targets_BT)


def compile_pieces(model: GPT, backend: str = "inductor") -> None:
    """Compile blocks and head in place, where they stay so: see `eager()`.

    Of a block its body alone, without the hooks around it: those of FSDP are not for the compiler.
    """
    options = INDUCTOR_OPTIONS if backend == "inductor" else None

    def compile_piece(function: Callable[P, R]) -> Callable[P, R]:
        # Static shapes: whether a kernel is compiled for one shape or for any must not depend on the order in which
        # batches come, or a resumed run would compute with other kernels than an undisturbed one.
        return torch.compile(function, dynamic=False, backend=backend, options=options)

    head_loss = HeadLoss(compile_piece(whole_loss), compile_piece(chunk_step))
    _set_pieces(model, compile_piece(block_body), head_loss)


def forget_compiled(model: GPT) -> None:
    """Undo `compile_pieces`."""
    _set_pieces(model, block_body, HeadLoss())


def _set_pieces(model: GPT, body: BlockBody, head_loss: HeadLoss) -> None:
    for block in model.model.layers:
        assert isinstance(block, Block)
        block.body = body
    model.head_loss = head_loss


def eager() -> AbstractContextManager[None]:
    """Inside, compiled modules run as written: validation has other shapes and is not worth compiling for."""
    return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))


def compile_loss(
    model: GPT, shapes: list[tuple[int, int]], context: StageContext, dtype: torch.dtype | None
) -> bool:
    """Compile the pieces of `model` for all `shapes`; False where one rank could not, and then none of them is compiled.

    Ranks ask each other only when all have tried, and meet nowhere before: one that fails keeps none waiting.
    """
    context.events.progress(0, 0, "steps", "compiling the model")

    def problem_found() -> str:
        try:
            compile_pieces(model)
            for shape in shapes:
                _try_out(model, shape, context.device, dtype)
        except Exception as error:  # the compiler's failures have no common base; eager gives the same model
            return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
        return ""

    with header_ahead(context.device):
        problem = distributed.with_whole_block(model, problem_found)
    if distributed.any_rank([bool(problem)])[0]:
        message = f"torch.compile failed, going on without it ({problem or 'on another rank'})"
        context.events.log("warning", message)
        forget_compiled(model)
        return False
    return True


@contextmanager
def header_ahead(device: str) -> Iterator[None]:
    """Inside, on a CPU, a thread precompiles the header of all C++ kernels, which takes 6 s, while blocks are being traced.

    Inductor does so when the first kernel is written, and waits. Here a kernel that does nothing is compiled its way, so
    that the header lies where the others look for it. What fails here fails there too, and is told there.
    """
    if device != "cpu":
        yield
        return

    def compile_nothing() -> None:
        with suppress(Exception):
            from torch._inductor import codecache, config

            with config.patch(INDUCTOR_OPTIONS):  # of this thread alone
                codecache.CppPythonBindingsCodeCache.load_pybinding(["long"], KERNEL_OF_NOTHING)

    thread = threading.Thread(target=compile_nothing, name="header-ahead", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _try_out(model: GPT, shape: tuple[int, int], device: str, dtype: torch.dtype | None) -> None:
    """Forward and backward pass of the pieces on dummy tokens; weights, gradients and random states stay as they were."""
    with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
        tokens_BT = torch.zeros(shape, dtype=torch.int64, device=device)
        with autocast(device, dtype):
            loss = model.first_block_loss(tokens_BT, tokens_BT)
        torch.autograd.grad(loss, [model.model.embed_tokens.weight])
