"""What the processor offers: how many cores this process may run on, and whether they multiply bfloat16."""

import os
from pathlib import Path


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
