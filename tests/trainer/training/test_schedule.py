from typing import get_args

import pytest
from picochat_contract.configs import BaseConfig, LrDecay
from picochat_trainer.training.schedule import learning_rate, num_decay_steps


def rates(**changes: object) -> list[float]:
    settings = {"learning_rate": 1.0, "warmup_steps": 4, "max_steps": 11, "min_lr_ratio": 0.1, **changes}
    config = BaseConfig(**settings)  # type: ignore[arg-type]
    return [learning_rate(config, step) for step in range(config.max_steps)]


def test_warm_up_is_linear_and_its_first_step_is_not_zero() -> None:
    assert rates()[:4] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("decay", get_args(LrDecay))
def test_a_derived_warm_up_gives_the_same_rates_as_one_of_as_many_steps_that_is_given(decay: str) -> None:
    found = rates(lr_decay=decay, warmup_steps=None, max_steps=20)
    assert found == rates(lr_decay=decay, warmup_steps=4, max_steps=20)


@pytest.mark.parametrize("decay", ["linear", "cosine", "wsd"])
def test_decay_falls_all_the_way_to_the_minimum(decay: str) -> None:
    found = rates(lr_decay=decay)[4:]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.1)


def test_linear_and_cosine_meet_in_the_middle() -> None:
    assert rates(lr_decay="linear")[7] == pytest.approx(0.55)
    assert rates(lr_decay="cosine")[7] == pytest.approx(0.55)


def test_no_decay_stays_at_the_peak() -> None:
    assert set(rates(lr_decay="none")[3:]) == {1.0}


def test_wsd_is_constant_and_then_linear_over_the_last_part() -> None:
    found = rates(lr_decay="wsd", max_steps=20, decay_fraction=0.25, min_lr_ratio=0.0)
    assert found[3:15] == [1.0] * 12
    assert found[15:] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


@pytest.mark.parametrize(
    ("fraction", "warmup", "steps"), [(0.5, 4, 10), (1.0, 4, 16), (0.9, 18, 2), (0.01, 0, 0)]
)
def test_wsd_decays_over_the_asked_part_of_all_steps_but_not_in_the_warm_up(
    fraction: float, warmup: int, steps: int
) -> None:
    settings = {"lr_decay": "wsd", "decay_fraction": fraction, "warmup_steps": warmup, "max_steps": 20}
    config = BaseConfig(learning_rate=1.0, min_lr_ratio=0.5, **settings)  # type: ignore[arg-type]
    found = [learning_rate(config, step) for step in range(20)]
    assert num_decay_steps(config) == steps
    assert sum(rate < 1 for rate in found[warmup:]) == steps
    assert found[:warmup] == pytest.approx([(step + 1) / warmup for step in range(warmup)])


@pytest.mark.parametrize("decay", get_args(LrDecay))
def test_stopping_early_does_not_change_the_schedule(decay: str) -> None:
    assert rates(lr_decay=decay, stop_after_steps=3) == rates(lr_decay=decay)


@pytest.mark.parametrize("decay", get_args(LrDecay))
@pytest.mark.parametrize(("warmup", "steps"), [(0, 1), (0, 2), (5, 5), (20, 3)])
def test_odd_lengths_give_rates_within_bounds(decay: str, warmup: int, steps: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(lr_decay=decay, warmup_steps=warmup, max_steps=steps))
