"""How many cores this process may run on."""

import os


def available_cores() -> int:
    """Cores of the process's affinity mask; all of them where the system has no such mask."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
