"""Which runs need somebody's word before they start, since a GPU's hours are paid for, and what that person is told.

A run is one of these where it trains, `resources.device` is not `cpu`, and its scale is a preset for GPUs or it takes
them for an hour or more; where the device is `cuda` by name, also where it is long by preflight's own definition. A dry
run that is over within the hour is not. `confirm_paid_launch: true` in its spec is the word. Base or SFT trained alone, on a
command line, is held to the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from picochat_contract.config_base import Config
from picochat_contract.configs import BaseConfig, ModelConfig, OptimConfig, Resources
from picochat_contract.device_classes import GPU_CLASSES, DeviceClass
from picochat_contract.errors import Code, SpecError
from picochat_contract.learning_rates import rows_per_step
from picochat_contract.model_size import flops_per_token, num_parameters, vocab_size
from picochat_contract.preflight_budget import long_run
from picochat_contract.preflight_facts import MachineFacts
from picochat_contract.preflight_footprint import training_seconds
from picochat_contract.scales_gpu import GPU_SCALES
from picochat_contract.spec import RunSpec, expand
from picochat_contract.stages import StageName

PARAM: Final = "confirm_paid_launch"
SLOW_SHARE: Final = 0.2
FAST_SHARE: Final = 0.5
"""Shares of a device's peak between which training of these models is expected to lie (preflight_footprint.py)."""
DRY_RUN_STEPS: Final = 200
"""A base training that stops before its end and after no more steps than this is a dry run,"""
DRY_RUN_HOURS: Final = 1.0
"""unless its steps are so large that a slow GPU is at them for longer than this."""
MOST_GPU_HOURS: Final = 1.0
"""By the higher estimate. What takes longer costs money, whatever it is by other rules; eight CPU cores would be at it for
a week, so that a device that is left open will be a GPU."""
USUAL_CLASSES: Final = ("h200", "h100", "a100")
"""Device classes that are looked at where the scale's name tells none."""
ADVICE: Final = (
    "on the machine that will train, run `picochat sanity preh100 --capacity-scale {scale}`, then `picochat run tiny "
    "--dry-run-steps 100 ...`, which measures hours and cost"
)


class PaidLaunch(Config):
    """What a run on GPUs that is not over soon will take, as far as the spec alone tells."""

    scale: str
    reason: str
    """Why it needs a confirmation."""
    num_gpus: int
    parameters: int
    planned_tokens: int
    """Of base pretraining; of SFT where that alone is trained."""
    devices: str
    """The device classes that the hours are for."""
    hours_low: float
    hours_high: float
    """Of all that is trained: on the fastest of `devices` at half of its peak, on the slowest at a fifth."""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """What a person sees, by name."""
        return (
            ("Scale", self.scale),
            ("GPUs", f"{self.num_gpus:,}"),
            ("Parameters", f"{self.parameters:,}"),
            ("Planned tokens", f"{self.planned_tokens:,}"),
            ("Estimated hours", f"{_hours(self.hours_low)} to {_hours(self.hours_high)} ({self.devices})"),
            ("GPU hours", f"{_hours(self.low_gpu_hours)} to {_hours(self.high_gpu_hours)}"),
            ("Why it asks", self.reason),
        )

    @property
    def told(self) -> str:
        """The facts in one line."""
        return (
            f"{self.num_gpus:,} GPU(s), {self.planned_tokens:,} planned tokens, about {_hours(self.hours_low)} to "
            f"{_hours(self.hours_high)} hours ({self.devices}); {self.reason}"
        )

    @property
    def low_gpu_hours(self) -> float:
        return self.hours_low * self.num_gpus

    @property
    def high_gpu_hours(self) -> float:
        return self.hours_high * self.num_gpus

    @property
    def advice(self) -> str:
        """What to do before saying yes."""
        return ADVICE.format(scale=self.scale if self.scale != "custom" else "PRESET")

    @property
    def message(self) -> str:
        """Everything in one line, with what to do."""
        return (
            f"this run is paid for by the hour: scale {self.scale}, {self.told}. Confirm it with {PARAM}: true in the spec, or --confirm-paid-launch; "
            f"but first, {self.advice}"
        )


def paid_launch(spec: RunSpec) -> PaidLaunch | None:
    """What is to be confirmed before `spec` runs; None where nothing is. Whether it was confirmed plays no part."""
    stages = expand(spec)
    base = stages.get(StageName.BASE)
    if not isinstance(base, BaseConfig):
        return None
    trained = [base, spec.sft] if StageName.SFT in stages else [base]
    return paid_training(trained, base.model, vocab_size(spec.tokenizer), spec.resources, scale=spec.scale)


def paid_training(
    trained: Sequence[OptimConfig],
    model: ModelConfig,
    vocab: int,
    resources: Resources,
    *,
    scale: str = "custom",
) -> PaidLaunch | None:
    """The same of stages that train `model`, one after the other: base and SFT, or one of them. `vocab` is in tokens."""
    if resources.device == "cpu":
        return None
    first, ranks = trained[0], resources.num_ranks
    steps = min(first.max_steps, first.stop_after_steps or first.max_steps)
    planned = [first.model_copy(update={"max_steps": steps}), *trained[1:]]
    parameters = num_parameters(model, vocab)
    tokens = steps * rows_per_step(first, ranks) * model.sequence_len
    classes = _classes(scale)
    seconds = [
        sum(
            training_seconds(config, model, vocab, replace(kind, utilisation=share), _NO_MACHINE, ranks)
            for config in planned
        )
        for kind in classes
        for share in (FAST_SHARE, SLOW_SHARE)
    ]
    low, high = min(seconds) / 3600, max(seconds) / 3600
    if steps < first.max_steps and steps <= DRY_RUN_STEPS and high <= DRY_RUN_HOURS:
        return None
    is_long, why = False, ""
    if isinstance(first, BaseConfig):
        is_long, why = long_run(steps, parameters, float(tokens) * flops_per_token(model, vocab))
    reason = _reason(scale, why if is_long else None, high * ranks, is_open=resources.device == "auto")
    if reason is None:
        return None
    return PaidLaunch(
        scale=scale,
        reason=reason,
        num_gpus=ranks,
        parameters=parameters,
        planned_tokens=tokens,
        devices=f"{' to '.join(dict.fromkeys((classes[0].pattern, classes[-1].pattern)))} at {FAST_SHARE:.0%} to "
        f"{SLOW_SHARE:.0%} of peak",
        hours_low=low,
        hours_high=high,
    )


def refuse_unconfirmed(spec: RunSpec) -> PaidLaunch | None:
    """`paid_launch(spec)`; raise `confirmation_required` where it needs a confirmation and has none."""
    launch = paid_launch(spec)
    if launch is not None and not spec.confirm_paid_launch:
        raise ConfirmationRequiredError(launch)
    return launch


class ConfirmationRequiredError(SpecError):
    """A run that is paid for by the hour was not confirmed; `launch` is what there is to confirm."""

    def __init__(self, launch: PaidLaunch) -> None:
        super().__init__(Code.CONFIRMATION_REQUIRED, launch.message, param=PARAM)
        self.launch = launch

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.launch,)


_NO_MACHINE: Final = MachineFacts(cpu_count=1, ram_bytes=0, free_disk_bytes=0)


def _reason(scale: str, long_why: str | None, gpu_hours: float, *, is_open: bool) -> str | None:
    """Why the run needs a confirmation; None where it does not. `long_why` is why it is a long run, None where it is none."""
    if long_why is not None and not is_open:
        return f"long run: {long_why}"
    if scale in GPU_SCALES:
        found = f"{scale} is a preset for GPUs"
    elif gpu_hours > MOST_GPU_HOURS:
        found = f"up to {_hours(gpu_hours)} GPU hours"
    else:
        return None
    return (
        f"{found}, and resources.device is auto (with resources.device: cpu it would not ask)"
        if is_open
        else found
    )


def _classes(scale: str) -> list[DeviceClass]:
    """Fastest first: the class that the scale is named after, else the usual ones."""
    named = [kind for kind in GPU_CLASSES if scale.lower().startswith(f"{kind.pattern}-")]
    return named or [kind for kind in GPU_CLASSES if kind.pattern in USUAL_CLASSES]


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.1f}" if hours >= 1 else f"{hours:.2f}"
