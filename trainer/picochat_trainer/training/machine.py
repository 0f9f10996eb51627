"""How fast the device could multiply, and how much memory this process has taken."""

import resource
import sys
import time
from typing import Final

import torch
from picochat_contract.device_classes import GPU_CLASSES

_SIZE: Final = 1024
_TIMES: Final = 5


def peak_flops(device: str, dtype: torch.dtype | None) -> float | None:
    """Operations per second by the maker's data sheet; None for the CPU, an unknown GPU, and float32."""
    if device == "cpu" or dtype is not torch.bfloat16:
        return None
    return listed_peak(torch.cuda.get_device_name(torch.device(device)))


def listed_peak(name: str) -> float | None:
    """bf16 without sparsity of a GPU by its name."""
    found = (kind.peak_flops for kind in GPU_CLASSES if kind.pattern in name.lower())
    return next(found, None)


def matmul_rate(device: str, dtype: torch.dtype | None) -> float:
    """Operations per second of the fastest of a few matmuls with the threads of this process."""
    shape = (_SIZE, _SIZE)
    a = torch.ones(shape, device=device, dtype=dtype or torch.float32)
    seconds = []
    for _ in range(_TIMES + 1):  # the first one sets up
        _synchronize(device)
        start = time.perf_counter()
        torch.mm(a, a)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * _SIZE**3 / min(seconds[1:])


def memory_peak(device: str) -> int:
    """Bytes: of tensors on a CUDA device, of the whole process on the CPU."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _synchronize(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
