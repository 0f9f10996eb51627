"""The few collectives that training needs. All are the identity in a single process."""

import os
import sys
import warnings
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


def wrap(module: nn.Module, device: str) -> nn.Module:
    """DDP where there are several ranks."""
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
