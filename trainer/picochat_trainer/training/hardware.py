"""Which device, number format, thread count and compiler a training uses, decided from what the machine has."""

import os
import platform
import shutil
from contextlib import AbstractContextManager, nullcontext

import torch
from picochat_contract.configs import Device, OptimConfig, Precision, Resources
from picochat_contract.errors import Code, ContractError
from picochat_contract.preflight_facts import GpuFacts

from picochat_trainer.cores import available_cores, cpu_has_bf16

# On two cores a cold compile takes 15 s per batch shape and halves the steps' time (measured).
_MIN_EAGER_SECONDS = 30.0
_BF16_MAJOR = 8  # compute capability from which tensor cores take bfloat16
_EAGER_FLOPS = {torch.bfloat16: 75e9, None: 45e9}  # per second and core, in training, measured with avx512


def resolve_device(device: Device, local_rank: int) -> str:
    """The torch device name of this rank; raise `device_unavailable`."""
    available = torch.cuda.is_available()
    if device == "cpu" or (device == "auto" and not available):
        return "cpu"
    count = torch.cuda.device_count() if available else 0
    if local_rank >= count:
        raise ContractError(
            Code.DEVICE_UNAVAILABLE,
            f"resources.device is {device!r} and local rank {local_rank} needs CUDA device {local_rank}; this "
            f"machine has {count}. Use device: cpu, or a smaller resources.nproc_per_node",
            param="resources.device",
        )
    return f"cuda:{local_rank}"


def cuda_devices() -> tuple[GpuFacts, ...]:
    """The CUDA devices that this process sees."""
    if not torch.cuda.is_available():
        return ()
    found = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return tuple(
        GpuFacts(
            name=device.name,
            memory_bytes=device.total_memory,
            has_bf16=device.major >= _BF16_MAJOR,
            capability=device.major,
        )
        for device in found
    )


def set_threads(resources: Resources) -> int:
    """Share the cores evenly between this machine's processes, unless the job names a number."""
    threads = resources.num_threads or max(1, available_cores() // resources.nproc_per_node)
    torch.set_num_threads(threads)
    return threads


def autocast_dtype(precision: Precision, device: str) -> torch.dtype | None:
    """bfloat16 where it is asked for, or where `auto` finds native arithmetic for it; None is plain float32."""
    if precision == "float32":
        return None
    if precision == "bf16":
        return torch.bfloat16
    native = cpu_has_bf16() if device == "cpu" else torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else None


def autocast(device: str, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Weights stay float32; matmuls run in `dtype`."""
    return nullcontext() if dtype is None else torch.autocast(torch.device(device).type, dtype=dtype)


def should_compile(
    config: OptimConfig, device: str, dtype: torch.dtype | None, flops: float, num_shapes: int
) -> bool:
    """`auto`: on CUDA always; on the CPU if a training of `flops` repays it and there is a C++ compiler."""
    if config.compile != "auto":
        return config.compile == "on"
    if device != "cpu":
        return True
    eager_seconds = flops / (_EAGER_FLOPS[dtype] * torch.get_num_threads())
    return eager_seconds >= _MIN_EAGER_SECONDS * num_shapes and has_cpp_compiler()


def has_cpp_compiler() -> bool:
    named = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([named] if named else ["g++", "clang++"]))


def arithmetic(device: str) -> dict[str, str | int | None]:
    """What the last bits of a sum depend on, besides the program: another of these takes other kernels or splits."""
    on_cpu = device == "cpu"
    gpu = (
        torch.cuda.get_device_name(torch.device(device)) if torch.cuda.is_available() and not on_cpu else None
    )
    return {
        "torch": str(torch.__version__),
        "hardware": torch.backends.cpu.get_cpu_capability() if on_cpu else gpu,
        "threads": torch.get_num_threads() if on_cpu else None,
    }


def describe(device: str) -> str:
    """The device in words, for reports."""
    if device == "cpu":
        return f"cpu ({platform.processor() or platform.machine()}, {torch.get_num_threads()} threads)"
    return torch.cuda.get_device_name(torch.device(device))
