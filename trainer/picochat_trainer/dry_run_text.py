"""A dry run as a person reads it."""

from typing import Final

from picochat_trainer.dry_run import DryRunRecord, number

NOT_MEASURED: Final = "not measured"


def table(record: DryRunRecord) -> list[tuple[str, str]]:
    """The rows that a person sees, by name."""
    m, e = record.measured, record.estimate
    cost = (
        f"{number(e.cost)}{_range(e.cost_low, e.cost_high)}"
        if e.cost is not None
        else "no --price-per-hour was given"
    )
    return [
        ("device", f"{m.device}, {m.num_ranks} rank(s)"),
        ("steps", f"{m.steps_done:,} of {record.max_steps:,} done, {m.steps_timed:,} timed"),
        ("tokens per step", f"{m.tokens_per_step:,} ({record.batch_source})"),
        ("tokens per second", f"{m.tokens_per_second:,.0f}"),
        (
            "seconds per step",
            f"{m.seconds_per_step:.4g}{_range(m.seconds_per_step_low, m.seconds_per_step_high)}",
        ),
        ("MFU", NOT_MEASURED if m.mfu is None else f"{100 * m.mfu:.1f} % (peak: {m.peak})"),
        ("first step", _seconds(m.first_step_seconds)),
        ("one validation", _seconds(m.validate_seconds)),
        ("one checkpoint", _seconds(m.checkpoint_seconds)),
        (
            "peak memory",
            NOT_MEASURED if m.memory_peak_bytes is None else f"{m.memory_peak_bytes / 1e9:.2f} GB",
        ),
        (
            "left to do",
            f"{e.steps_left:,} steps, {e.validations_left:,} validations, {e.checkpoints_left:,} checkpoints",
        ),
        ("hours left", f"{number(e.hours)}{_range(e.hours_low, e.hours_high)}"),
        ("GPU hours left" if "cpu" not in m.device else "process hours left", number(e.gpu_hours)),
        (
            "energy left",
            NOT_MEASURED if e.kilowatt_hours is None else f"{number(e.kilowatt_hours)} kWh (GPUs alone)",
        ),
        ("cost left", cost),
    ]


def markdown(record: DryRunRecord) -> str:
    lines = ["# Dry run", "", f"Scale {record.scale}.", "", "| what | measured or estimated |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in table(record)]
    lines += ["", *(f"- **Over the limit**: {words}." for words in record.over)]
    return "\n".join([*lines, *(f"- {note}" for note in record.notes), ""])


def _seconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3g} s"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({number(low)} to {number(high)})"
