"""Learning rates and weight decays that follow from model, tokens and batch."""

import pytest
from picochat_contract.configs import BaseConfig, ModelConfig, Optimizer, SftConfig
from picochat_contract.learning_rates import (
    DEFAULT_SFT_DECAY,
    DEFAULT_SFT_RATE,
    FITTED_FROM,
    LAW_MAXIMUM,
    LAW_WARMUP,
    LEAST_DECAY,
    MOST_DECAY,
    SMALL_ADAMW_MAXIMUM,
    effective_learning_rate,
    effective_warmup_steps,
    effective_weight_decay,
    law_learning_rate,
    law_timescale,
    rows_per_step,
)
from picochat_contract.model_size import num_body_parameters

# About 100M parameters without the embedding; 2e9 tokens in 15,625 steps of 128 rows of 1,024.
MEDIUM = BaseConfig(
    model=ModelConfig(n_layer=12, n_head=12, n_embd=768, sequence_len=1024),
    max_steps=15_625,
    device_batch_size=32,
    grad_accum_steps=4,
    learning_rate=None,
    weight_decay=None,
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
    assert law_learning_rate(10**9, 10**11, batch, "adamw") == pytest.approx(
        1.79 * 1e9**-0.713 * 1e11**0.307, rel=1e-4
    )


def test_a_fourfold_batch_doubles_the_rate_of_the_law() -> None:
    small, large = (law_learning_rate(10**9, 2 * 10**10, batch, "adamw") for batch in (2**18, 2**20))
    assert large == pytest.approx(2 * small)


@pytest.mark.parametrize(("optimizer", "most"), [("adamw", SMALL_ADAMW_MAXIMUM), ("muon", LAW_MAXIMUM)])
def test_small_models_are_not_given_rates_outside_what_the_law_was_fitted_on(
    optimizer: Optimizer, most: float
) -> None:
    assert law_learning_rate(10**5, 10**7, 2_048, optimizer) == most
    config = BaseConfig(learning_rate=None, optimizer=optimizer)
    assert effective_learning_rate(config, 1) == most


def test_models_that_the_law_was_fitted_on_have_its_rates_with_adamw_too() -> None:
    assert SMALL_ADAMW_MAXIMUM < law_learning_rate(FITTED_FROM, 2 * 10**9, 2**17, "adamw") <= LAW_MAXIMUM
    assert law_learning_rate(FITTED_FROM - 1, 2 * 10**9, 2**17, "adamw") == SMALL_ADAMW_MAXIMUM


def test_a_rate_that_is_not_given_is_that_of_the_law_for_all_tokens_of_the_run() -> None:
    step_tokens = 128 * 1024
    wanted = law_learning_rate(num_body_parameters(MEDIUM.model), 15_625 * step_tokens, step_tokens, "adamw")
    assert effective_learning_rate(MEDIUM, 1) == wanted
    assert 5e-4 < wanted < LAW_MAXIMUM


def test_a_derived_rate_is_that_of_its_batch_already() -> None:
    scaled = MEDIUM.model_copy(update={"auto_lr_scaling": True})
    assert effective_learning_rate(scaled, 1) == effective_learning_rate(MEDIUM, 1)


def test_ranks_that_share_the_same_steps_change_nothing() -> None:
    shared = MEDIUM.model_copy(update={"grad_accum_steps": 1})
    assert effective_learning_rate(shared, 4) == effective_learning_rate(MEDIUM, 1)
    assert effective_weight_decay(shared, 4) == effective_weight_decay(MEDIUM, 1)


def test_the_timescale_is_that_of_the_law() -> None:
    """1.084 (D/N)^-0.527: 0.224 of the run at 20 tokens per parameter."""
    assert law_timescale(10**8, 2 * 10**9) == pytest.approx(0.2236, abs=1e-4)
    assert law_timescale(10**8, 10**8) == 1.084


def test_a_derived_decay_averages_over_the_share_of_the_run_that_the_law_asks_for() -> None:
    decay, rate = effective_weight_decay(MEDIUM, 1), effective_learning_rate(MEDIUM, 1)
    share = law_timescale(num_body_parameters(MEDIUM.model), 15_625 * 128 * 1024)
    assert LEAST_DECAY < decay < MOST_DECAY
    assert 1 / (rate * decay) == pytest.approx(share * 15_625)


@pytest.mark.parametrize(("steps", "rate", "decay"), [(100, 1e-4, MOST_DECAY), (15_625, 1.0, LEAST_DECAY)])
def test_a_derived_decay_stays_within_bounds(steps: int, rate: float, decay: float) -> None:
    config = MEDIUM.model_copy(update={"max_steps": steps, "learning_rate": rate})
    assert effective_weight_decay(config, 1) == decay


def test_what_is_given_is_used_even_if_it_is_nothing() -> None:
    assert effective_weight_decay(MEDIUM.model_copy(update={"weight_decay": 0.0}), 1) == 0.0


def test_fine_tuning_has_values_of_its_own() -> None:
    config = SftConfig(learning_rate=None, weight_decay=None)
    assert effective_learning_rate(config, 1) == DEFAULT_SFT_RATE
    assert effective_weight_decay(config, 1) == DEFAULT_SFT_DECAY


@pytest.mark.parametrize(
    ("steps", "warmup"), [(100_000, 40), (200, 40), (199, 39), (100, 20), (13, 2), (5, 1), (4, 0), (1, 0)]
)
def test_the_warm_up_is_derived_and_a_fifth_of_a_short_run_at_most(steps: int, warmup: int) -> None:
    """2 / (1 - 0.95) = 40."""
    assert effective_warmup_steps(BaseConfig(max_steps=steps)) == warmup
    assert effective_warmup_steps(SftConfig(max_steps=steps)) == warmup


@pytest.mark.parametrize("given", [0, 3, LAW_WARMUP + 1, 1_000])
def test_a_warm_up_that_is_given_is_taken(given: int) -> None:
    assert effective_warmup_steps(BaseConfig(max_steps=100, warmup_steps=given)) == given
