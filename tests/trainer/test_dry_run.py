"""What a dry run makes of the report and the events of a base stage: arithmetic on a folder that was written by hand."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import ContractError
from picochat_contract.manifest import Manifest
from picochat_contract.spec import parse_mapping
from picochat_contract.stages import StageName
from picochat_trainer.dry_run import DryRunRecord, dry_run_record
from picochat_trainer.dry_run_text import markdown, table

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = parse_mapping(
    {
        "base": {
            "model": {"sequence_len": 100},
            "device_batch_size": 5,
            "grad_accum_steps": 2,
            "max_steps": 1000,
            "eval_every": 100,
            "checkpoint_every": 200,
        },
        "resources": {"nproc_per_node": 4},
        "preflight": {"max_hours": 2},
    }
)
STEP_TOKENS = 100 * 5 * 2 * 4
SPEEDS = (100.0, 2000.0, 4000.0, 2000.0, 4000.0, 2000.0)  # tokens/s at each log line; the first one warms up
THROUGHPUT = {
    "device": "NVIDIA H100",
    "tokens": 50 * STEP_TOKENS,
    "tokens_per_second": 1000.0,
    "mfu": 0.2,
    "peak": {"source": "data sheet of the device"},
    "first_step_seconds": 30.0,
    "compile_seconds": 60.0,
    "validate_seconds": 10.0,
    "checkpoint_seconds": 6.0,
    "memory_peak_bytes": 20_000_000_000,
    "energy_joules": 50_000.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def write(speeds: tuple[float, ...] = SPEEDS, *, first: int = 0, **throughput: Any) -> Path:
        stage = tmp_path / "stages/base"
        stage.mkdir(parents=True)
        events: list[tuple[str, dict[str, Any]]] = [
            (
                "metric",
                {"step": 1, "values": {"tokens_per_second": 1e9, "train_loss": 9.0}},
            )  # an earlier attempt's
        ]
        steps = [first + (1 if index == 0 else 10 * index) for index in range(len(speeds))]
        for step, speed in zip(steps, speeds, strict=True):
            events.append(
                ("metric", {"step": step, "values": {"tokens_per_second": speed, "train_loss": 3.0}})
            )
        events.append(("metric", {"step": steps[-1], "values": {"val_loss": 3.0}}))
        events.append(
            ("metric", {"step": steps[-1], "values": {"val_loss": 2.9, "unigram_bpb": 4.0}})
        )  # the report's
        events += [("checkpoint", {}), ("log", {"message": "x"}), ("checkpoint", {})]
        with (stage / "events.jsonl").open("w") as file:
            for number, (kind, data) in enumerate(events):
                time = NOW - timedelta(seconds=100 if number == 0 else 5)
                event = {"seq": number + 1, "time": time.isoformat(), "type": kind, "data": data}
                file.write(json.dumps(event) + "\n")
            file.write('{"seq": 99, "ti')  # a torn line
        manifest = Manifest(
            stage=StageName.BASE,
            fingerprint="f",
            code_version="c",
            created_at=NOW,
            duration_seconds=50,
            outputs=(),
        )
        (stage / "manifest.json").write_text(manifest.model_dump_json())
        (tmp_path / "base").mkdir()
        report = {"num_steps": steps[-1], "throughput": {**THROUGHPUT, **throughput}}
        (tmp_path / "base/train_report.json").write_text(json.dumps(report))
        return tmp_path

    return write


def record(run_dir: Path, price: float | None = 3.0, max_cost: float | None = None) -> DryRunRecord:
    return dry_run_record(run_dir, SPEC, price_per_hour=price, max_cost=max_cost)


def test_the_first_interval_and_earlier_attempts_are_left_out(folder: Callable[..., Path]) -> None:
    measured = record(folder()).measured
    assert (measured.steps_done, measured.steps_timed) == (50, 49)
    slow, fast = STEP_TOKENS / 2000, STEP_TOKENS / 4000
    assert measured.seconds_per_step == pytest.approx((29 * slow + 20 * fast) / 49)
    assert (measured.seconds_per_step_low, measured.seconds_per_step_high) == (fast, slow)
    assert measured.tokens_per_second == pytest.approx(STEP_TOKENS / measured.seconds_per_step)
    assert (measured.validate_seconds, measured.checkpoint_seconds) == (10.0, 3.0)
    assert measured.startup_seconds == 60.0


def test_mfu_is_that_of_the_timed_steps_as_the_speed_is(folder: Callable[..., Path]) -> None:
    measured = record(folder()).measured
    assert measured.mfu == pytest.approx(0.2 * measured.tokens_per_second / 1000)


def test_the_estimate_counts_steps_validations_and_checkpoints_that_are_left(
    folder: Callable[..., Path],
) -> None:
    found = record(folder())
    measured, estimate = found.measured, found.estimate
    assert (estimate.steps_left, estimate.validations_left, estimate.checkpoints_left) == (950, 10, 5)
    around = 60 + 10 * 10 + 5 * 3
    assert estimate.hours == pytest.approx((950 * measured.seconds_per_step + around) / 3600)
    assert estimate.hours_low == pytest.approx((950 * 1.0 + around) / 3600)
    assert estimate.hours_high == pytest.approx((950 * 2.0 + around) / 3600)
    assert estimate.gpu_hours == pytest.approx(4 * estimate.hours)
    assert estimate.cost == pytest.approx(3 * 4 * estimate.hours)
    assert estimate.cost_high == pytest.approx(12 * (950 * 2.0 + around) / 3600)
    # 50,000 J of all four GPUs in 50 steps
    assert estimate.kilowatt_hours == pytest.approx(950 * 1000 / 3.6e6)
    assert found.over == ()


@pytest.mark.parametrize(("minutes", "is_cut"), [(5.0, True), (600.0, False)])
def test_minutes_that_end_the_training_end_the_estimate(
    folder: Callable[..., Path], minutes: float, is_cut: bool
) -> None:
    run_dir = folder()
    whole = record(run_dir)
    base = SPEC.base.model_copy(
        update={"max_minutes": minutes, "grad_accum_steps": SPEC.base_config.grad_accum_steps}
    )
    found = dry_run_record(run_dir, SPEC.model_copy(update={"base": base}), price_per_hour=3.0, max_cost=None)
    assert any("base.max_minutes" in note for note in found.notes) is is_cut
    if not is_cut:
        assert found.estimate == whole.estimate
        return
    left = 5 / 60 - 50 * whole.measured.seconds_per_step / 3600
    estimate = found.estimate
    around = 60 + 10 * estimate.validations_left + 3 * estimate.checkpoints_left
    assert estimate.hours * 3600 == pytest.approx(
        estimate.steps_left * whole.measured.seconds_per_step + around,
        rel=0.06,  # the last validation and checkpoint come wherever it ends
    )
    assert 0.9 * left < estimate.hours <= left == pytest.approx(estimate.hours_high)
    assert (estimate.hours_low or 0) < estimate.hours
    assert 0 < estimate.steps_left < whole.estimate.steps_left
    assert estimate.cost == pytest.approx(3 * 4 * estimate.hours)
    assert estimate.kilowatt_hours == pytest.approx(estimate.steps_left * 1000 / 3.6e6)


def test_minutes_that_are_over_after_the_last_step_end_nothing(folder: Callable[..., Path]) -> None:
    """All steps are done, nothing else was measured, and the start alone would take longer than the minutes."""
    run_dir = folder(validate_seconds=None, checkpoint_seconds=None)
    base = SPEC.base.model_copy(
        update={"max_minutes": 0.5, "max_steps": 50, "grad_accum_steps": SPEC.base_config.grad_accum_steps}
    )
    found = dry_run_record(run_dir, SPEC.model_copy(update={"base": base}), price_per_hour=3.0, max_cost=None)
    assert (found.estimate.steps_left, found.estimate.hours) == (0, pytest.approx(60 / 3600))


def test_minutes_that_are_over_leave_nothing_to_do(folder: Callable[..., Path]) -> None:
    base = SPEC.base.model_copy(
        update={"max_minutes": 0.5, "grad_accum_steps": SPEC.base_config.grad_accum_steps}
    )
    found = dry_run_record(
        folder(), SPEC.model_copy(update={"base": base}), price_per_hour=3.0, max_cost=None
    )
    assert (found.estimate.steps_left, found.estimate.hours, found.estimate.cost) == (0, 0.0, 0.0)


def test_an_estimate_over_a_limit_says_so(folder: Callable[..., Path]) -> None:
    slow = folder(tuple(speed / 10 for speed in SPEEDS))
    assert len(record(slow, max_cost=1.0).over) == 2
    assert "preflight.max_hours is 2" in record(slow).over[0]
    assert "**Over the limit**" in markdown(record(slow))


def test_what_was_not_measured_is_said_and_not_guessed(folder: Callable[..., Path]) -> None:
    nothing = dict.fromkeys(THROUGHPUT, None) | {"device": "cpu (x86_64, 2 threads)"}
    run_dir = folder(SPEEDS[:3], **nothing)
    found = record(run_dir, price=None)
    rows = dict(table(found))
    for name in ("MFU", "first step", "one validation", "one checkpoint", "peak memory", "energy left"):
        assert rows[name] == "not measured", name
    assert rows["cost left"] == "no --price-per-hour was given"
    assert found.estimate.hours_low is None
    notes = " ".join(found.notes)
    assert "No validations were timed" in notes and "there is no range" in notes


@pytest.mark.parametrize(
    ("batch", "tokens", "said"),
    [
        ({"grad_accum_steps": 2}, 4_000, "given"),
        ({"global_batch_tokens": 8_000}, 8_000, "given"),
        ({"max_steps": 100_000}, 1_270_000, "derived by Step Law, arXiv 2503.04715"),
    ],
)
def test_the_tokens_of_a_step_are_said_with_where_they_come_from(
    folder: Callable[..., Path], batch: dict[str, Any], tokens: int, said: str
) -> None:
    base = {"model": {"sequence_len": 100}, "device_batch_size": 5, **batch}
    spec = parse_mapping({"base": base, "resources": {"nproc_per_node": 4}})
    found = dry_run_record(folder(), spec, price_per_hour=None, max_cost=None)
    assert dict(table(found))["tokens per step"] == f"{tokens:,} ({said})"


def test_a_folder_in_which_nothing_was_timed_is_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no report of base training"):
        record(tmp_path)
    with pytest.raises(ContractError, match="no step was timed"):
        record(folder(SPEEDS[:1]))
