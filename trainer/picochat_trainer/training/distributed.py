"""How a training is spread over ranks, and the few collectives it needs. All are the identity in a single process."""

import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from picochat_contract.configs import DistributedStrategy
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def start(device: str, world_size: int) -> None:
    """Join the process group that torchrun described in the environment."""
    if world_size > 1:
        if device != "cpu":
            torch.cuda.set_device(device)
        dist.init_process_group("gloo" if device == "cpu" else "nccl")


def finish() -> None:
    """Leave together after the last collective; the main rank may go on alone."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def exit_process(code: int) -> None:
    """End at once: gloo's threads abort the interpreter's normal exit about one time in ten (measured)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def shard(model: nn.Module, device: str, strategy: DistributedStrategy) -> None:
    """Share the parameters of `model` out over the ranks, in place; to be called before the optimizer is made."""


def wrap(module: nn.Module, device: str, strategy: DistributedStrategy = "ddp") -> nn.Module:
    """What the loop calls for the loss: with several ranks, backward passes then average gradients over them."""
    if not dist.is_initialized():
        return module
    with warnings.catch_warnings():
        # 2.13 deprecates broadcast_buffers but has nothing yet that also leaves them alone at the start.
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(
            module,
            device_ids=None if device == "cpu" else [torch.device(device).index],
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            static_graph=True,
        )


@contextmanager
def accumulating(module: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Around forward and backward pass of one micro-batch of what `wrap` gave: only the last one of a step talks."""
    yield


def clip(model: nn.Module, limit: float) -> Tensor:
    """Scale gradients down to a global norm of `limit` (0: never); return the norm before, 0-d, without a host sync."""
    return nn.utils.clip_grad_norm_(model.parameters(), limit or math.inf)


def full_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The whole weights on the CPU of the main rank, {} on the others; all ranks call this."""
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if is_main:
            found[name] = whole.detach().cpu()
    return found


def any_rank(flags: Sequence[bool], device: str) -> list[bool]:
    """For each flag: did any rank raise it? All ranks get the same answer."""
    if not dist.is_initialized():
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def sum_over_ranks(values: Sequence[float], device: str) -> list[float]:
    if not dist.is_initialized():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]


def gather_tensors(tensors: dict[str, Tensor], device: str) -> list[dict[str, Tensor]]:
    """Every rank's tensors, by rank; shapes are the same on all."""
    if not dist.is_initialized():
        return [tensors]
    gathered: list[dict[str, Tensor]] = [{} for _ in range(dist.get_world_size())]
    for name, tensor in sorted(tensors.items()):
        parts = [torch.empty_like(tensor, device=device) for _ in gathered]
        dist.all_gather(parts, tensor.to(device))
        for rank, part in enumerate(parts):
            gathered[rank][name] = part.cpu()
    return gathered
