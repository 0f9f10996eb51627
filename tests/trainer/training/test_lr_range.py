"""The learning-rate range test: what it reads from a curve, and where it stops."""

import math
from itertools import pairwise

import pytest
import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.errors import ContractError
from picochat_trainer.model import GPT
from picochat_trainer.training.lr_range import (
    Found,
    Point,
    Sweep,
    draw,
    markdown,
    read_curve,
    report,
    sweep_rates,
)
from picochat_trainer.training.reader import Batching, WindowReader
from picochat_trainer.training.tokens import ArrayTokens

CONFIG = BaseConfig(
    model=ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=16), device_batch_size=4, grad_clip=0.0
)
FACTS = {"num_parameters": 1, "optimizer": "adamw", "rows_per_step": 4, "sequence_len": 16}


def sweep_tiny(sweep: Sweep, *, optimizer: str = "adamw", seen: list[Point] | None = None) -> Found:
    torch.manual_seed(0)
    model = GPT(CONFIG.model, 20)
    model.init_weights(1)
    tokens = (torch.arange(2000) ** 2 % 20).numpy().astype("uint16")
    reader = WindowReader(ArrayTokens(tokens), Batching(sequence_len=16, device_batch_size=4))
    return sweep_rates(
        model,
        reader,
        CONFIG.model_copy(update={"optimizer": optimizer}),
        sweep,
        device="cpu",
        dtype=None,
        on_point=(seen if seen is not None else []).append,
    )


def test_each_step_multiplies_the_rate_by_the_same_number() -> None:
    sweep = Sweep(num_steps=11, min_rate=1e-6, max_rate=1e-1)
    rates = [sweep.rate(step) for step in range(11)]
    assert (rates[0], rates[-1]) == pytest.approx((1e-6, 1e-1))
    assert all(b / a == pytest.approx(10**0.5) for a, b in pairwise(rates))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_recommended_rate_lies_within_the_sweep(optimizer: str) -> None:
    sweep = Sweep(num_steps=40, min_rate=1e-5, max_rate=0.05, smoothing_beta=0.8)
    found = sweep_tiny(sweep, optimizer=optimizer)
    assert math.isfinite(found.recommended)
    assert sweep.min_rate <= found.recommended <= sweep.max_rate
    assert found.points[-1].smoothed_loss < found.points[0].smoothed_loss


def test_a_rate_that_is_far_too_high_ends_the_sweep() -> None:
    seen: list[Point] = []
    sweep = Sweep(num_steps=60, min_rate=1e-3, max_rate=1.0, divergence_factor=1.3, smoothing_beta=0.5)
    found = sweep_tiny(sweep, seen=seen)
    assert found.diverged_at is not None
    assert len(found.points) == len(seen) < 60
    assert found.diverged_at == sweep.rate(len(found.points))
    assert found.recommended <= found.diverged_at / 10


def curve(losses: list[float]) -> list[Point]:
    return [
        Point(step=step, learning_rate=10.0 ** (step - 6), loss=loss, smoothed_loss=loss)
        for step, loss in enumerate(losses)
    ]


def test_the_rate_of_the_steepest_descent_is_taken_where_it_is_the_smaller() -> None:
    found = read_curve(curve([5.0, 5.0, 4.9, 3.0, 2.8, 2.7]), None)
    assert (found.lowest_at, found.steepest_at) == pytest.approx((1e-1, 1e-3))
    assert found.recommended == pytest.approx(1e-3)


def test_a_tenth_of_where_the_loss_left_is_taken_where_that_is_the_smaller() -> None:
    found = read_curve(curve([5.0, 4.9, 4.8, 3.0]), 1e-3)
    assert found.steepest_at == pytest.approx(1e-4)
    assert read_curve(curve([5.0, 4.9, 4.8, 3.0]), 5e-4).recommended == pytest.approx(5e-5)
    assert found.recommended == pytest.approx(1e-4)


def test_a_loss_that_leaves_at_once_says_to_start_lower() -> None:
    with pytest.raises(
        ContractError, match=r"left after 2 steps, at a rate of 0.1; start lower, with --min-lr 1e-08"
    ):
        read_curve(curve([5.0, 4.9]), 0.1)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"num_steps": 9}, "--steps"),
        ({"min_rate": 0.0}, "--max-lr"),
        ({"max_rate": 1e-7}, "--max-lr"),
        ({"divergence_factor": 1.0}, "--divergence-factor"),
        ({"smoothing_beta": 1.0}, "--smoothing-beta"),
    ],
)
def test_impossible_sweeps_are_refused(changes: dict[str, float], option: str) -> None:
    with pytest.raises(ContractError, match=option):
        Sweep(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("diverged_at", [None, 1e-3])
def test_the_reports_say_what_was_found_and_why(diverged_at: float | None) -> None:
    found = read_curve(curve([5.0, 4.9, 3.0, 2.9]), diverged_at)
    values = report(found, Sweep(), CONFIG, FACTS)
    assert values["recommended_learning_rate"] == found.recommended
    assert values["stop_reason"] == ("max_lr" if diverged_at is None else "diverged")
    assert [point["step"] for point in values["points"]] == [0, 1, 2, 3]
    text = markdown(found, Sweep(), FACTS)
    assert f"learning_rate {found.recommended:.2g}**" in text
    assert ("did not leave" in text) is (diverged_at is None)
    [axes] = draw(found).axes
    marked = [line.get_label() for line in axes.get_lines()]
    assert f"recommended, {found.recommended:.2g}" in marked
    assert ("left" in marked) is (diverged_at is not None)
