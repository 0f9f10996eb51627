"""What the machine is, and two checks of it: facts that must hold before a long run, and room on its disk."""

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch
from picochat_contract.learning_rates import rows_per_step
from picochat_contract.model_size import vocab_size
from picochat_contract.preflight_footprint import disk_bytes

from picochat_trainer.cores import available_cores, cpu_has_bf16
from picochat_trainer.preflight.machine import memory_bytes
from picochat_trainer.sanity.check import Finding, judged
from picochat_trainer.sanity.setup import Setup

OLDEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
"""A clock before this was never set: certificates would look invalid, and events would lie in the past."""
MAX_DISK_SHARE: Final = 0.8
LEAST_FREE_BYTES: Final = 1 << 30
_SMI: Final = ("driver_version", "power.limit", "power.default_limit", "clocks.max.sm", "ecc.mode.current")

Facts = dict[str, str | float | None]


def environment(setup: Setup) -> Facts:
    """Versions, devices, limits; None for what cannot be read here."""
    gpus = [torch.cuda.get_device_properties(index) for index in range(setup.num_gpus)]
    facts: Facts = {
        "time": now().isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "cores": available_cores(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "cpu_bf16": str(cpu_has_bf16()).lower(),
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if setup.num_gpus else None,
        "nccl": ".".join(map(str, torch.cuda.nccl.version())) if setup.num_gpus else None,
        "gpus": ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in gpus) or "none",
    }
    return facts | driver_facts()


def driver_facts() -> Facts:
    """What `nvidia-smi` says of each GPU, joined; nothing without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(_SMI)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {"nvidia-smi": "did not answer"}
    rows = [[cell.strip() for cell in line.split(",")] for line in answer.strip().splitlines()]
    return {
        name: ", ".join(dict.fromkeys(row[index] for row in rows if len(row) == len(_SMI)))
        for index, name in enumerate(_SMI)
    }


def check_environment(setup: Setup) -> Finding:
    """A set clock, enough GPUs and of one kind, and the number format that was asked for in hardware."""
    problems = list(_problems(setup))
    names = [torch.cuda.get_device_name(index) for index in range(setup.num_gpus)]
    note = ""
    if setup.preset is not None and not names and _processes(setup) > 1:  # a look ahead, on a laptop say
        note = f"; {setup.preset.scale} is for {_processes(setup)} GPUs"
    found = f"{len(names)} GPU(s){': ' + names[0] if names else ''}, torch {torch.__version__}{note}"
    return judged(
        not problems,
        len(names),
        f"clock after {OLDEST:%Y-%m-%d}, GPUs of one kind, one for each process of the preset, native number format",
        "; ".join([*problems, found]),
    )


def check_disk(setup: Setup) -> Finding:
    """Room for the token shards and checkpoints of the preset."""
    free = shutil.disk_usage(setup.folder).free
    if setup.preset is None:
        return judged(
            free >= LEAST_FREE_BYTES,
            free / 1e9,
            f">= {LEAST_FREE_BYTES / 1e9:.1f} GB free",
            f"{free / 1e9:.1f} GB are free; no --capacity-scale was given, so the needs of a run are not known",
        )
    base = setup.preset.base_config
    tokens = base.max_steps * rows_per_step(base, setup.preset.resources.num_ranks) * base.model.sequence_len
    needed = disk_bytes(base, vocab_size(setup.preset.tokenizer), tokens)
    return judged(
        needed <= MAX_DISK_SHARE * free,
        needed / free if free else float("inf"),
        f"<= {MAX_DISK_SHARE:g} of the free space",
        f"{needed / 1e9:.1f} GB for checkpoints and, at one epoch, {tokens:,} tokens; {free / 1e9:.1f} GB are free on the "
        f"file system of {setup.folder.parent}",
    )


def now() -> datetime:
    """A seam for tests."""
    return datetime.now(UTC)


def _problems(setup: Setup) -> list[str]:
    found = []
    if now() < OLDEST:
        found.append(f"the clock says {now():%Y-%m-%d}")
    names = {torch.cuda.get_device_name(index) for index in range(setup.num_gpus)}
    if len(names) > 1:
        found.append(f"GPUs of different kinds: {', '.join(sorted(names))}; all ranks wait for the slowest")
    if setup.preset is not None and 0 < setup.num_gpus < _processes(setup):
        found.append(
            f"{setup.preset.scale} starts {_processes(setup)} processes with a GPU each, and this machine has "
            f"{setup.num_gpus}: training would not start"
        )
    if setup.precision == "bf16" and not native_bf16(setup):
        found.append("precision bf16 is asked for, and this device does not compute it natively")
    return found


def _processes(setup: Setup) -> int:
    """How many the preset starts on a machine, one per GPU."""
    return setup.preset.resources.nproc_per_node if setup.preset is not None else 1


def native_bf16(setup: Setup) -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False) if setup.on_gpu else cpu_has_bf16()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
