"""Losses that no guard judges: what counts as a spike, and when a training has diverged."""

import math
from collections.abc import Iterable

import pytest
from picochat_contract.configs import BaseConfig, OptimConfig, SftConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.training.spike_watch import (
    CALM_STEPS,
    DIVERGED_STEPS,
    LEAST_RISE,
    Watched,
    refuse_divergence,
    spike_warning,
    watched,
)
from picochat_trainer.training.spikes import BETA, THRESHOLD, WARM_STEPS


def after(losses: Iterable[float]) -> Watched:
    """What is known behind losses that begin with the first step."""
    found = Watched()
    for step, loss in enumerate(losses):
        found = watched(step, loss, found)
    return found


def test_a_spike_does_not_enter_the_running_mean() -> None:
    found = after([2.0] * 10 + [2.0 * THRESHOLD + 0.1])
    assert (found.baseline, found.in_a_row) == (2.0, 1)


def test_a_loss_that_is_no_spike_enters_it_and_ends_the_event() -> None:
    found = after([2.0] * 10 + [9.0, 9.0, 4.0])
    assert found == Watched(baseline=pytest.approx(BETA * 2.0 + (1 - BETA) * 4.0), last_spike=11)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float) -> None:
    """It is counted by itself, and an update that was skipped neither mends a training nor spoils it."""
    assert after([2.0] * 10 + [9.0, bad]) == Watched(baseline=2.0, in_a_row=1, last_spike=10)
    assert after([bad]) == Watched()


@pytest.mark.parametrize(("calm", "is_new"), [(0, False), (CALM_STEPS - 1, False), (CALM_STEPS, True)])
def test_spikes_that_are_close_are_one_event(calm: int, is_new: bool) -> None:
    first = [2.0] * 10 + [9.0]
    assert after(first).begins
    assert after([*first, *[2.0] * calm, 9.0]).begins is is_new


def test_an_easy_first_batch_does_not_make_all_others_spikes() -> None:
    """Answers of SFT rows differ: a mean that begins with 0.3 alone would stay below 3.0 / THRESHOLD for long."""
    assert after([0.3] + [3.0] * (WARM_STEPS + 40)).in_a_row == 0


@pytest.mark.parametrize(("rise", "spike"), [(LEAST_RISE - 0.1, False), (LEAST_RISE + 0.1, True)])
def test_a_small_loss_may_be_several_times_as_large_in_another_batch(rise: float, spike: bool) -> None:
    settled = [0.02] * 10
    assert 0.02 + rise > THRESHOLD * 0.02
    assert (after([*settled, 0.02 + rise]).in_a_row == 1) is spike


def test_only_a_whole_run_of_spikes_is_a_divergence() -> None:
    spikes = after([2.0] * 10 + [9.0] * (DIVERGED_STEPS - 1))
    refuse_divergence(50, 9.0, spikes, SftConfig())
    with pytest.raises(ContractError) as caught:
        refuse_divergence(51, 9.0, watched(51, 9.0, spikes), SftConfig())
    assert (caught.value.code, caught.value.param) == (Code.INVALID_VALUE, "learning_rate")
    assert f"at step 51, for {DIVERGED_STEPS} steps in a row" in str(caught.value)
    assert "lower sft.learning_rate" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "mend"),
    [
        (BaseConfig(), "set base.loss_spike_rollback to undo such steps, lower base.learning_rate"),
        (SftConfig(), "if it does not fall again, lower sft.learning_rate"),
    ],
)
def test_the_warning_says_what_happened_and_what_to_do(config: OptimConfig, mend: str) -> None:
    text = spike_warning(34, 9.25, Watched(baseline=2.0), config)
    assert text.startswith("step 34: loss 9.250 is a spike, the running mean is 2.000")
    assert mend in text
