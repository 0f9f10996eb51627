from typing import Any

import pytest
from picochat_contract.configs import BaseConfig, BatchSource, OptimConfig, SftConfig
from picochat_trainer.training.checkpoint import LossPoint
from picochat_trainer.training.diagnosis import (
    loss_diagnostics,
    loss_table,
    optimization,
    throughput_text,
    training_lines,
    with_error,
)


def curve(*points: tuple[float, float]) -> list[LossPoint]:
    """(train loss, validation loss) at steps 1, 2, ..."""
    return [LossPoint(step=i, train_loss=t, val_loss=v) for i, (t, v) in enumerate(points, 1)]


@pytest.mark.parametrize(
    ("points", "status"),
    [
        (curve((3, 3), (2, 2.1)), "stable"),
        (curve((3, 3), (1, 2.2)), "watch-gap"),
        (curve((3, 3), (2.9, 3.3)), "watch-val-regression"),
        (curve((3, 3), (2, 2.5), (1, 2.9)), "memorization-risk"),
        ([], "unknown"),
    ],
)
def test_the_curves_get_their_word(points: list[LossPoint], status: str) -> None:
    assert loss_diagnostics(points)["status"] == status


def test_the_diagnosis_names_the_best_step() -> None:
    found = loss_diagnostics(curve((3, 3), (2, 2.5), (1, 2.9)))
    assert (found["best_step"], found["best_val_loss"]) == (2, 2.5)
    assert found["gap"] == pytest.approx(1.9)
    assert found["regression"] == pytest.approx(0.4)


def test_the_table_has_the_validations_and_never_loses_the_last() -> None:
    points = [LossPoint(step=s, train_loss=1.0, val_loss=1.0 if s % 2 else None) for s in range(1, 402)]
    table = loss_table(points)
    assert len(table) <= 2 + 41 + 1
    assert table[-1].startswith("| 401 |")


def test_a_measure_is_told_with_its_error_where_it_has_one() -> None:
    assert with_error(1.4982, 0.0121) == "1.498 +- 0.012"
    assert (with_error(1.5, None), with_error(None, None)) == ("1.500", "")
    table = loss_table([LossPoint(step=3, train_loss=1.0, val_loss=1.25, val_loss_stderr=0.5, val_bpb=2.0)])
    assert table[-1] == "| 3 | 1.000 | 1.250 +- 0.500 | 2.000 |  |"


@pytest.mark.parametrize(
    ("config", "rate", "rate_source", "decay_source"),
    [
        (BaseConfig(learning_rate=1e-3), 1e-3, "given", "given"),
        (BaseConfig(learning_rate=None, weight_decay=None), None, "derived by Step Law", "derived"),
        (
            BaseConfig(learning_rate=1e-3, auto_lr_scaling=True, device_batch_size=32),
            2e-3,
            "given x sqrt",
            "given",
        ),
        (SftConfig(learning_rate=None, weight_decay=None), 1e-3, "default of SFT", "default of SFT"),
    ],
)
def test_the_report_says_where_rate_and_decay_come_from(
    config: OptimConfig, rate: float | None, rate_source: str, decay_source: str
) -> None:
    found = optimization(config, 1)
    assert found["learning_rate_source"].startswith(rate_source)
    assert found["weight_decay_source"].startswith(decay_source)
    assert rate is None or found["learning_rate"] == pytest.approx(rate)


@pytest.mark.parametrize(
    ("given", "said"), [(None, "40 steps of warm-up (derived"), (7, "7 steps of warm-up (given)")]
)
def test_the_report_says_how_long_the_warm_up_is_and_where_it_comes_from(
    given: int | None, said: str
) -> None:
    found = optimization(BaseConfig(warmup_steps=given), 1)
    report = {"optimization": found, "throughput": throughput(), "num_nonfinite_steps": 0, "loss_spikes": []}
    assert said in training_lines(report)[0]


def test_a_warm_up_that_is_cut_to_a_share_of_a_short_run_says_so() -> None:
    found = optimization(BaseConfig(max_steps=100), 1)
    assert (found["warmup_steps"], found["warmup_steps_source"]) == (
        20,
        "0.2 of the steps, of 40 by arXiv 1910.04209",
    )


@pytest.mark.parametrize(("source", "said"), [("given", "given"), ("derived", "derived by Step Law")])
def test_the_report_says_where_the_rows_of_a_step_come_from(source: BatchSource, said: str) -> None:
    found = optimization(BaseConfig(batch_source=source), 1)
    assert found["rows_per_step_source"].startswith(said)
    report = {"optimization": found, "throughput": throughput(), "num_nonfinite_steps": 0, "loss_spikes": []}
    assert f"16 rows per step ({said}" in training_lines(report)[0]


def throughput(**changes: Any) -> dict[str, Any]:
    whole = {
        "tokens_per_second": 41_000.0,
        "tokens_per_second_with_pauses": 38_000.0,
        "gflops_per_second": 368.0,
        "mfu": 0.4,
        "peak": {"flops_per_second": 920e9, "source": "a measurement"},
        "first_step_seconds": 12.34,
        "train_seconds": 100.0,
        "data_wait_share": 0.001,
        "compile_seconds": 9.0,
        "validate_seconds": 8.0,
        "checkpoint_seconds": 0.5,
        "memory_peak_bytes": 3 << 20,
        "energy_joules": None,
        "energy_note": "no energy counter",
        "compiled": True,
        "precision": "bf16",
        "num_ranks": 1,
        "device": "cpu (x86)",
        "rollbacks": [],
    }
    return {**whole, **changes}


def test_speed_is_told_with_what_it_is_a_share_of() -> None:
    text = throughput_text(throughput())
    assert text.startswith("41,000 tokens/s on 1 x cpu (x86) (bf16, compiled), 38,000 with validation")
    assert "an MFU of 40.0% of 920 GFLOP/s per rank (a measurement)" in text
    assert throughput_text(throughput(tokens_per_second=None)).startswith("No step was done")


@pytest.mark.parametrize(
    ("joules", "text"), [(None, "no energy counter"), (1234.5, "1,234 J of all its GPUs")]
)
def test_energy_is_told_or_why_it_is_not(joules: float | None, text: str) -> None:
    report = {
        "optimization": optimization(BaseConfig(learning_rate=1e-3, ema_decay=0.99), 1),
        "throughput": throughput(energy_joules=joules),
        "num_nonfinite_steps": 0,
        "loss_spikes": [],
    }
    lines = training_lines(report)
    assert any(text in line and "First step 12.3 s" in line for line in lines)
    assert "mean of the weights with decay 0.99" in lines[0]


@pytest.mark.parametrize(
    ("spikes", "rollbacks", "said"),
    [
        ([], [], "- Loss spikes: none."),
        ([34, 51], [], "- Loss spikes: 2, at step 34, 51; trained on."),
        ([34], [33], "- Loss spikes: 1, at step 34; undone."),
        (
            [*range(1, 13)],
            [],
            "- Loss spikes: 12, at step 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and others; trained on.",
        ),
    ],
)
def test_the_report_tells_where_the_loss_jumped(spikes: list[int], rollbacks: list[int], said: str) -> None:
    report = {
        "optimization": optimization(BaseConfig(), 1),
        "throughput": throughput(rollbacks=rollbacks),
        "num_nonfinite_steps": 0,
        "loss_spikes": spikes,
    }
    assert said in training_lines(report)
