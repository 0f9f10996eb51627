"""Learning rates that follow from the batch."""

import pytest
from picochat_contract.configs import BaseConfig
from picochat_contract.learning_rates import (
    LAW_MAXIMUM,
    effective_learning_rate,
    law_learning_rate,
    rows_per_step,
)


def test_rows_are_counted_over_ranks_and_accumulation() -> None:
    assert rows_per_step(BaseConfig(device_batch_size=4, grad_accum_steps=3), 8) == 96


@pytest.mark.parametrize(("rows", "ranks", "factor"), [(8, 1, 1.0), (32, 1, 2.0), (32, 4, 4.0), (2, 1, 0.5)])
def test_automatic_scaling_follows_the_square_root_of_the_rows(rows: int, ranks: int, factor: float) -> None:
    config = BaseConfig(device_batch_size=rows, learning_rate=1e-3, auto_lr_scaling=True)
    assert effective_learning_rate(config, ranks) == pytest.approx(1e-3 * factor)
    plain = config.model_copy(update={"auto_lr_scaling": False})
    assert effective_learning_rate(plain, ranks) == 1e-3


def test_the_law_gives_its_own_rate_at_its_own_batch() -> None:
    """1.79 N^-0.713 D^0.307 at 0.58 D^0.571 tokens per step: N = 1e9, D = 1e11."""
    batch = round(0.58 * 1e11**0.571)
    assert law_learning_rate(10**9, 10**11, batch) == pytest.approx(
        1.79 * 1e9**-0.713 * 1e11**0.307, rel=1e-4
    )


def test_a_fourfold_batch_doubles_the_rate_of_the_law() -> None:
    small, large = (law_learning_rate(10**9, 2 * 10**10, batch) for batch in (2**18, 2**20))
    assert large == pytest.approx(2 * small)


def test_small_models_are_not_given_rates_outside_what_the_law_was_fitted_on() -> None:
    assert law_learning_rate(10**5, 10**7, 2_048) == LAW_MAXIMUM
