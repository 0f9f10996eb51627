"""What a few real steps of base training say about the whole of it: hours, energy and cost, with their spread.

Reads what a base stage that stopped early left in the run folder (its report and its events), and writes dry_run.json
and dry_run.md there. Measures nothing itself, and needs no torch.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from picochat_contract import layout
from picochat_contract.batch_size import source_in_words
from picochat_contract.config_base import Config
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.events import EventType, StageEvent
from picochat_contract.learning_rates import rows_per_step
from picochat_contract.spec import RunSpec
from picochat_contract.stages import StageName
from pydantic import ValidationError

from picochat_trainer.launch import read_manifest

JSON: Final = "dry_run.json"
MARKDOWN: Final = "dry_run.md"
MIN_INTERVALS: Final = 3
"""Fewer timed intervals say nothing about their spread."""
NOTES: Final = (
    "The estimate is for base pretraining, without a start-up that downloads or builds data and without the tests of the "
    "best checkpoint at its end; SFT, fit, eval and audit come on top and were not measured.",
    "The range is that of the 10th and 90th percentile of the timed steps: what it costs if all steps were as quick, or "
    "as slow. A machine that slows down later is outside of it.",
)


class Measured(Config):
    """What the steps of this dry run took. Seconds, bytes, joules; None where the stage did not report it."""

    device: str
    num_ranks: int
    steps_done: int
    """Optimizer steps behind the checkpoint, earlier calls counted in."""
    steps_timed: int
    """Of this dry run, without those before the first logged one: they hold compilation and warm-up."""
    tokens_per_step: int
    seconds_per_step: float
    """Mean over the timed steps, validation and checkpoints left out."""
    seconds_per_step_low: float | None
    """10th percentile of the logged intervals; None where there were too few."""
    seconds_per_step_high: float | None
    """90th percentile."""
    tokens_per_second: float
    mfu: float | None
    """Share of `peak` that the timed steps reached."""
    peak: str | None
    """Where the peak comes from, in words."""
    startup_seconds: float | None
    """Compilation and the first step."""
    first_step_seconds: float | None
    validate_seconds: float | None
    """One validation."""
    checkpoint_seconds: float | None
    """One resume checkpoint, as far as it holds up the training."""
    memory_peak_bytes: int | None
    joules_per_step: float | None
    """Of all GPUs, start-up and pauses of this dry run counted in."""


class Estimate(Config):
    """The rest of the run, from here to `max_steps` or to where `max_minutes` ends it, if it does not stop early."""

    steps_left: int
    validations_left: int
    checkpoints_left: int
    hours: float
    hours_low: float | None
    hours_high: float | None
    total_steps_hours: float
    """From step 0: what the whole base training takes."""
    gpu_hours: float
    kilowatt_hours: float | None
    cost: float | None
    """In the currency of the price that was given."""
    cost_low: float | None
    cost_high: float | None


class DryRunRecord(Config):
    """Content of `dry_run.json`."""

    scale: str
    max_steps: int
    batch_source: str
    """Where the tokens of a step come from, in words."""
    measured: Measured
    estimate: Estimate
    price_per_hour: float | None
    max_hours: float | None
    max_cost: float | None
    over: tuple[str, ...]
    """The limits that the estimate exceeds, in words."""
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Interval:
    """Steps between two log lines of one attempt."""

    steps: int
    seconds_per_step: float


def dry_run_record(
    run_dir: Path, spec: RunSpec, *, price_per_hour: float | None, max_cost: float | None
) -> DryRunRecord:
    """Read the folder of a base stage that stopped after some steps; raise ContractError where nothing was timed."""
    measured = _measured(run_dir, spec)
    base = spec.base_config
    estimate = estimated(measured, base, price_per_hour)
    return DryRunRecord(
        scale=spec.scale,
        max_steps=base.max_steps,
        batch_source=source_in_words(base),
        measured=measured,
        estimate=estimate,
        price_per_hour=price_per_hour,
        max_hours=spec.preflight.max_hours,
        max_cost=max_cost,
        over=_over(estimate, spec.preflight.max_hours, max_cost),
        notes=(*NOTES, *_cut_off(measured, estimate, base), *_left_out(measured, estimate)),
    )


def estimated(measured: Measured, base: BaseConfig, price_per_hour: float | None) -> Estimate:
    """Steps left times seconds per step, plus each validation and checkpoint that is still to come."""
    done, limit = measured.steps_done, math.inf
    whole = _estimated(measured, base, base.max_steps, limit, price_per_hour)
    if base.max_minutes is None:
        return whole
    limit = max(0.0, base.max_minutes / 60 - done * measured.seconds_per_step / 3600)
    if whole.hours <= limit or not whole.steps_left:
        return whole
    startup = (measured.startup_seconds or 0.0) / 3600
    last = done + int(whole.steps_left * max(0.0, limit - startup) / (whole.hours - startup))
    return _estimated(measured, base, last, limit, price_per_hour)


def _estimated(
    measured: Measured, base: BaseConfig, last: int, most_hours: float, price_per_hour: float | None
) -> Estimate:
    """Up to step `last`, and no more than so many hours."""
    done = measured.steps_done
    validations = _events_between(done, last, base.eval_every, at_end=True)
    checkpoints = _events_between(done, last, base.checkpoint_every, at_end=True)
    around = (
        (measured.startup_seconds or 0.0)
        + validations * (measured.validate_seconds or 0.0)
        + checkpoints * (measured.checkpoint_seconds or 0.0)
    )

    def hours(seconds_per_step: float | None) -> float | None:
        if seconds_per_step is None:
            return None
        return min(most_hours, ((last - done) * seconds_per_step + around) / 3600)

    def cost(value: float | None) -> float | None:
        return None if value is None or price_per_hour is None else value * gpus * price_per_hour

    gpus = measured.num_ranks
    middle = hours(measured.seconds_per_step)
    assert middle is not None
    low, high = hours(measured.seconds_per_step_low), hours(measured.seconds_per_step_high)
    joules = measured.joules_per_step
    return Estimate(
        steps_left=last - done,
        validations_left=validations,
        checkpoints_left=checkpoints,
        hours=middle,
        hours_low=low,
        hours_high=high,
        total_steps_hours=middle + done * measured.seconds_per_step / 3600,
        gpu_hours=middle * gpus,
        kilowatt_hours=None if joules is None else (last - done) * joules / 3.6e6,
        cost=cost(middle),
        cost_low=cost(low),
        cost_high=cost(high),
    )


def _cut_off(measured: Measured, estimate: Estimate, base: BaseConfig) -> Sequence[str]:
    """Where `max_minutes` ends the training before `max_steps` does."""
    last = measured.steps_done + estimate.steps_left
    if base.max_minutes is None or last == base.max_steps:
        return ()
    return (
        f"base.max_minutes {base.max_minutes:g} ends the training after about {last:,} of {base.max_steps:,} steps; what is "
        "left is counted up to there",
    )


def _measured(run_dir: Path, spec: RunSpec) -> Measured:
    report = _report(run_dir)
    throughput: Mapping[str, Any] = report.get("throughput") or {}
    events = _events(run_dir)
    ranks = spec.resources.num_ranks
    step_tokens = rows_per_step(spec.base_config, ranks) * spec.base.model.sequence_len
    intervals = _intervals(events, step_tokens)
    timed = sum(interval.steps for interval in intervals)
    done = int(report["num_steps"])
    if not timed:
        raise ContractError(
            Code.INVALID_VALUE,
            f"no step was timed: the training in {run_dir} has {done} steps behind it and logged no two of them in this "
            "call. Give more --dry-run-steps than that, or another --out-dir",
            param="dry_run_steps",
        )
    mean = sum(interval.steps * interval.seconds_per_step for interval in intervals) / timed
    low, high = _spread(intervals)
    device = str(throughput.get("device", "unknown device"))
    speed = step_tokens / mean
    first = _float(throughput, "first_step_seconds")
    compiled = _float(throughput, "compile_seconds")
    mfu, overall = _float(throughput, "mfu"), _float(throughput, "tokens_per_second")
    joules, tokens = _float(throughput, "energy_joules"), _float(throughput, "tokens")
    return Measured(
        device=device,
        num_ranks=ranks,
        steps_done=done,
        steps_timed=timed,
        tokens_per_step=step_tokens,
        seconds_per_step=mean,
        seconds_per_step_low=low,
        seconds_per_step_high=high,
        tokens_per_second=speed,
        mfu=None if mfu is None or not overall else mfu * speed / overall,
        peak=(throughput.get("peak") or {}).get("source"),
        startup_seconds=None if first is None and compiled is None else max(first or 0.0, compiled or 0.0),
        first_step_seconds=first,
        validate_seconds=_each(throughput, "validate_seconds", _num_validations(events)),
        checkpoint_seconds=_each(
            throughput, "checkpoint_seconds", sum(event.type is EventType.CHECKPOINT for event in events)
        ),
        memory_peak_bytes=_int(throughput, "memory_peak_bytes"),
        joules_per_step=joules * step_tokens / tokens if joules is not None and tokens else None,
    )


def _report(run_dir: Path) -> dict[str, Any]:
    path = run_dir / layout.BASE_REPORT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        int(found["num_steps"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE, f"{path} is no report of base training: {error}", param=str(path)
        ) from error
    return dict(found)


def _events(run_dir: Path) -> list[StageEvent]:
    """What the last attempt of the base stage said."""
    stage_dir = run_dir / "stages" / StageName.BASE.value
    manifest = read_manifest(stage_dir)
    if manifest is None:
        return []
    began = manifest.created_at - timedelta(seconds=manifest.duration_seconds)
    found = []
    for line in (stage_dir / "events.jsonl").read_bytes().splitlines():
        try:
            event = StageEvent.model_validate_json(line)
        except ValidationError:
            continue  # a line that a kill tore
        if event.time >= began:
            found.append(event)
    return found


def _intervals(events: Sequence[StageEvent], step_tokens: int) -> list[_Interval]:
    """Log lines with a speed, each about the steps since the one before it; the first holds the warm-up."""
    found: list[_Interval] = []
    before: int | None = None
    for event in events:
        speed = (
            event.data.get("values", {}).get("tokens_per_second") if event.type is EventType.METRIC else None
        )
        if speed:
            step = int(event.data["step"])
            if before is not None and step > before:
                found.append(_Interval(steps=step - before, seconds_per_step=step_tokens / float(speed)))
            before = step
    return found


def _spread(intervals: Sequence[_Interval]) -> tuple[float | None, float | None]:
    if len(intervals) < MIN_INTERVALS:
        return None, None
    tenths = quantiles([interval.seconds_per_step for interval in intervals], n=10, method="inclusive")
    return tenths[0], tenths[-1]


def _num_validations(events: Sequence[StageEvent]) -> int:
    """How often the loop validated: at most once after a step. The report measures the best weights once more, untimed,
    and tells that with the last step too."""
    found = (event.data for event in events if event.type is EventType.METRIC)
    return len({data["step"] for data in found if "val_loss" in data.get("values", {})})


def _events_between(done: int, last: int, every: int, *, at_end: bool) -> int:
    """How many of the steps after `done` up to `last` are multiples of `every`; the last one counts in any case."""
    count = last // every - done // every
    return count + (at_end and last % every != 0 and last > done)


def _over(estimate: Estimate, max_hours: float | None, max_cost: float | None) -> tuple[str, ...]:
    found = []
    if max_hours is not None and estimate.hours > max_hours:
        found.append(f"{number(estimate.hours)} hours are left, preflight.max_hours is {max_hours:g}")
    if max_cost is not None and estimate.cost is not None and estimate.cost > max_cost:
        found.append(f"the rest costs {number(estimate.cost)}, --max-cost is {max_cost:g}")
    return tuple(found)


def _left_out(measured: Measured, estimate: Estimate) -> list[str]:
    """What is still to come and was not measured, so that the estimate has nothing for it."""
    pairs = (
        ("validations", estimate.validations_left, measured.validate_seconds),
        ("checkpoints", estimate.checkpoints_left, measured.checkpoint_seconds),
    )
    found = [
        f"No {name} were timed in this dry run, so the {count:,} that are left count for nothing in it."
        for name, count, seconds in pairs
        if count and seconds is None
    ]
    if measured.seconds_per_step_low is None:
        found.append("Too few steps were logged to say how far they differ: there is no range.")
    return found


def _float(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _int(values: Mapping[str, Any], name: str) -> int | None:
    value = _float(values, name)
    return None if value is None else round(value)


def _each(values: Mapping[str, Any], name: str, count: int) -> float | None:
    total = _float(values, name)
    return None if total is None or count == 0 else total / count


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
