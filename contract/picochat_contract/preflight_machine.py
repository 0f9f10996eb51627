"""Preflight rules about the machine: device, memory, disk, time."""

from typing import Final

from picochat_contract.preflight_plan import FA3
from picochat_contract.preflight_rules import NO_ROOM, Condition, Measured, Rule, Subject, above, equal
from picochat_contract.stages import StageName

TENSORBOARD: Final = "tensorboard"
OPTIONAL_PACKAGES: Final = (TENSORBOARD, FA3)
"""What a machine is asked about."""
LONG_HOURS: Final = 24.0
"""Without a max_hours of its own, a run that is estimated to take longer warns."""


def _device(s: Subject) -> Measured:
    wanted, gpus = s.plan.resources.device, len(s.facts.machine.gpus)
    ranks = s.plan.resources.nproc_per_node
    needed = 0 if wanted == "cpu" or (wanted == "auto" and not gpus) else ranks
    return Measured(
        value=max(0, needed - gpus),
        message=f"device {wanted} with {ranks} rank(s) on a machine with {gpus} CUDA device(s)",
    )


def _memory(s: Subject) -> Measured:
    b = s.budget
    parts = {
        "weights": b.memory_parameter_bytes,
        "gradients": b.memory_gradient_bytes,
        "optimizer": b.memory_optimizer_bytes,
        "mean of the weights": b.memory_ema_bytes,
        "rollback": b.memory_snapshot_bytes,
        "activations": b.memory_activation_bytes,
        "logits": b.memory_logit_bytes,
    }
    shown = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    return Measured(
        value=b.memory_bytes / b.device_memory_bytes if b.device_memory_bytes else NO_ROOM,
        message=f"{_size(b.memory_bytes)} ({shown}) of {_size(b.device_memory_bytes)} per rank on {b.device}",
    )


def _packages(s: Subject) -> Measured:
    stages = (s.plan.base, *([s.plan.sft] if s.runs(StageName.SFT) else []))
    needed = {TENSORBOARD} if any(stage.tensorboard for stage in stages) else set()
    missing = sorted(needed.difference(s.facts.machine.packages))
    return Measured(
        value=len(missing),
        message=f"not installed: {', '.join(missing)}" if missing else "nothing that is needed is missing",
    )


def _host_memory(s: Subject) -> Measured:
    if s.plan.base.dataset_mode != "memory":
        return Measured(value=0.0, message=f"dataset_mode {s.plan.base.dataset_mode} maps its files")
    ram, needed = s.facts.machine.ram_bytes, s.budget.token_memory_bytes
    return Measured(
        value=needed / ram if ram else NO_ROOM,
        message=f"{_size(needed)} of tokens in {_size(ram)} of memory",
    )


def _disk(s: Subject) -> Measured:
    free, needed = s.facts.machine.free_disk_bytes, s.budget.disk_bytes
    return Measured(
        value=needed / free if free else NO_ROOM,
        message=f"{_size(needed)} of tokens and checkpoints, {_size(free)} are free",
    )


def _time(s: Subject) -> Measured:
    hours, limit = s.budget.estimated_hours, s.config.max_hours
    if hours is None:
        said = f"the speed of {s.budget.device} is not known here"
        return Measured(value="unknown" if limit is None else "unknown, but limited", message=said)
    said = f"about {_duration(hours)} of training on {s.budget.device}"
    if limit is None:
        return Measured(value="long, not limited" if hours > LONG_HOURS else "within", message=said)
    return Measured(
        value="over max_hours" if hours > limit else "within", message=f"{said}; max_hours is {limit:g}"
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"


MACHINE_RULES: Final = (
    Rule(
        id="device",
        measures="CUDA devices that are missing for the ranks that were asked for",
        block=(above(0),),
        fix="set resources.device to auto or cpu, or resources.nproc_per_node to the number of devices",
        measure=_device,
        stage=StageName.BASE,
    ),
    Rule(
        id="optional_packages",
        measures="Python packages that the plan's settings need and that are not installed",
        block=(above(0),),
        fix="install picochat[monitor] on every machine that trains, or set tensorboard of base and sft to false",
        measure=_packages,
        stage=StageName.BASE,
    ),
    Rule(
        id="memory",
        measures="weights, gradients, optimizer states, activations and logits of base or SFT, whichever takes more, over the "
        "memory of the smallest device",
        warn=(above(0.85),),
        block=(above(1.0),),
        unit="share",
        fix="lower device_batch_size of base or sft, whichever is larger, and raise its grad_accum_steps by as much; or set "
        "gradient_checkpointing to true, which costs a third more operations; or, where weights and optimizer are most of "
        "it, resources.distributed_strategy to fsdp",
        measure=_memory,
        stage=StageName.BASE,
    ),
    Rule(
        id="host_memory",
        measures="tokens held in memory by all ranks, over the machine's memory",
        warn=(above(0.5),),
        block=(above(1.0),),
        unit="share",
        fix="set base.dataset_mode to sharded or packed",
        measure=_host_memory,
        stage=StageName.BASE,
    ),
    Rule(
        id="disk_space",
        measures="token shards and checkpoints, over free disk space",
        warn=(above(0.8),),
        block=(above(1.0),),
        unit="share",
        fix="free some space, or give another folder",
        measure=_disk,
        stage=StageName.BASE,
    ),
    Rule(
        id="time_estimate",
        measures=f"estimated hours of base and SFT against preflight.max_hours; without one, against {LONG_HOURS:g}",
        warn=(equal("long, not limited"), equal("unknown", Condition.LONG)),
        block=(equal("over max_hours"), equal("unknown, but limited")),
        unit="words",
        fix="set preflight.max_hours to what you accept, or plan fewer steps or more ranks",
        measure=_time,
        stage=StageName.BASE,
    ),
)
