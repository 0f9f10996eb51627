"""What the processor and its memory offer a process, and settings of the libraries that use them."""

import ctypes
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

SPIN_COUNT: Final = "1000"
"""How often a thread of GNU OpenMP looks for its fellows before it sleeps; 300,000 by itself, and 1,000 where it knows
of more threads than cores.

With other work on the machine a fellow is often not running, and a thread that spins takes the core that it needs.
Steps/s of two threads (1.5M parameters, 1,024 tokens, eager) on two cores that twelve other processes wanted:
300,000: 0.1; 30,000: 0.1; 5,000: 0.5; 1,000: 1.2; none (OMP_WAIT_POLICY=PASSIVE): 1.8, which costs 25 % on a quiet machine.
"""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Make threads of this process and its children spin briefly, unless it is told how; before torch is loaded."""
    if not environment.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
        environment["GOMP_SPINCOUNT"] = SPIN_COUNT


def keep_freed_memory() -> bool:
    """Let this process keep what it frees for what it allocates next; False where the C library is not glibc.

    By itself glibc gives tensors of the size of activations back at once, and each step has its pages zeroed again
    (1.5M parameters, 8,192 tokens: 17,900 page faults a step against none, 5 to 9 % of its time). The process does not
    shrink between its peaks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def available_cores() -> int:
    """Cores of the process's affinity mask; all of them where the system has no such mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Without these instructions bfloat16 is emulated, slower than float32."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
