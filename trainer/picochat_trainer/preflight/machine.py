"""The machine as preflight sees it: devices, cores, memory, free disk. Loads torch only where there is a GPU driver."""

import importlib
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from picochat_contract.preflight_facts import GpuFacts, MachineFacts
from picochat_contract.preflight_machine import OPTIONAL_PACKAGES

from picochat_trainer.cores import available_cores, cpu_has_bf16

DRIVERS: Final = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
"""One of these files is there where a process can use a GPU: NVIDIA, AMD, Windows' subsystem for Linux."""
CGROUP_LIMITS: Final = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def machine_facts(folder: Path, world_size: int) -> MachineFacts:
    """Measure; `folder` says which file system counts."""
    return MachineFacts(
        gpus=visible_gpus(),
        cpu_count=available_cores(),
        cpu_has_bf16=cpu_has_bf16(),
        ram_bytes=memory_bytes(),
        free_disk_bytes=shutil.disk_usage(folder).free,
        world_size=world_size,
        packages=tuple(name for name in OPTIONAL_PACKAGES if find_spec(name) is not None),
    )


def visible_gpus(drivers: Sequence[Path] = DRIVERS) -> tuple[GpuFacts, ...]:
    if not any(driver.exists() for driver in drivers):
        return ()
    # Imported here because it needs torch, which a machine without a GPU need not wait for.
    hardware = importlib.import_module("picochat_trainer.training.hardware")
    found: tuple[GpuFacts, ...] = hardware.cuda_devices()
    return found


def memory_bytes(limits: Sequence[Path] = CGROUP_LIMITS) -> int:
    """Memory of the machine, or of the container that this process is in where that is less."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *(limit for path in limits if (limit := _limit(path)) is not None)])


def _limit(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file, or the word `max`
        return None
