"""Losses that no guard judges: what counts as a spike, and when a training has diverged."""

import itertools
import math
import random
from collections.abc import Iterable, Iterator

import pytest
from picochat_contract.configs import BaseConfig, OptimConfig, SftConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.training.spike_watch import (
    CALM_STEPS,
    DIVERGED_STEPS,
    JUDGED_FROM,
    LEAST_RISE,
    Watched,
    refuse_divergence,
    spike_warning,
    watched,
)
from picochat_trainer.training.spikes import BETA, WARM_STEPS


def seen(losses: Iterable[float]) -> Iterator[Watched]:
    """What is known behind each of the losses, which begin with the first step."""
    found = Watched()
    for step, loss in enumerate(losses):
        found = watched(step, loss, found)
        yield found


def after(losses: Iterable[float]) -> Watched:
    *_, last = seen(losses)
    return last


def events(losses: Iterable[float]) -> list[int]:
    return [step for step, found in enumerate(seen(losses)) if found.begins]


def learning(steps: int, low: float = 3.3, noise: float = 0.1, start: float = 9.0) -> list[float]:
    """Losses that come down from `start` in about fifty steps."""
    draw = random.Random(1).gauss
    return [low + (start - low) * math.exp(-step / 15) + draw(0, noise) for step in range(steps)]


def test_a_training_that_learns_has_no_spikes_and_has_not_diverged() -> None:
    found = list(seen(learning(2_000)))
    assert not any(one.begins or one.num_lost for one in found)
    assert found[-1].mean == pytest.approx(3.3, abs=0.1)
    assert found[-1].start == pytest.approx(9.0, abs=0.3)


def test_a_jump_is_told_once_and_moves_the_mean_by_no_more_than_the_start_would() -> None:
    losses = [*learning(200), 100.0, *learning(400)[200:]]
    assert events(losses) == [200]
    before, jumped = list(seen(losses))[199:201]
    assert before.mean is not None
    assert jumped.mean == pytest.approx(BETA * before.mean + (1 - BETA) * before.start)
    assert (jumped.last_spike, jumped.num_lost) == (200, 0)


@pytest.mark.parametrize(("calm", "is_new"), [(CALM_STEPS - 1, False), (CALM_STEPS, True)])
def test_spikes_that_are_close_are_one_event(calm: int, is_new: bool) -> None:
    losses = [*learning(200), 20.0, *[3.3] * calm, 60.0]
    assert events(losses) == [200] + [201 + calm] * is_new


def test_text_of_another_kind_is_told_once_and_trained_on() -> None:
    """3.3 to 5 nats, for good: the mean gets used to it."""
    losses = [*learning(200), *learning(300, low=5.0, start=5.0)]
    assert events(losses) == [200]
    assert not any(found.num_lost for found in seen(losses))


@pytest.mark.parametrize(("level", "start"), [(7.5, 9.0), (9.0, 9.0), (40.0, 9.0), (5.5, 6.9)])
def test_a_training_that_loses_what_it_had_learned_has_diverged(level: float, start: float) -> None:
    """7.5 nats are about what the frequencies of 8,192 tokens alone give, 5.5 those of 1,024."""
    low = 3.3 if start == 9.0 else 2.5
    losses = [*learning(200, low, start=start), *[level] * 80]
    diverged = [step for step, found in enumerate(seen(losses)) if found.has_diverged]
    assert 200 + DIVERGED_STEPS < diverged[0] < 200 + 3 * DIVERGED_STEPS
    assert events(losses) == [200]


def test_one_that_creeps_back_to_its_start_has_diverged_too() -> None:
    losses = [*learning(200), *(3.3 + 0.02 * step for step in range(300))]
    assert after(losses).has_diverged


@pytest.mark.parametrize("seed", range(12))
def test_rows_of_two_kinds_are_neither_spikes_nor_a_divergence(seed: int) -> None:
    """Of answers that are known by heart and of longer ones, as batches of like lengths have them."""
    draw = random.Random(seed)
    levels = (1.2 if draw.random() < 0.6 else 0.1 for _ in itertools.count())
    losses = [
        max(level, 4.0 - step / 20) * draw.uniform(0.9, 1.1)
        for step, level in zip(range(10_000), levels, strict=False)
    ]
    assert not any(found.begins or found.has_diverged for found in seen(losses))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(bad: float) -> None:
    """It is counted by itself, and an update that was skipped neither mends a training nor spoils it."""
    losses = [*learning(100), 50.0]
    assert after([*losses, bad]) == after(losses).model_copy(update={"begins": False})
    assert after([bad]) == Watched()


def test_an_easy_first_batch_is_not_the_start() -> None:
    """Answers of SFT rows differ."""
    losses = [0.3] + [3.0] * (WARM_STEPS + 60)
    assert after(losses).start == 3.0
    assert not events(losses)


def test_nothing_is_judged_before_the_mean_knows_anything() -> None:
    quiet = [2.0] * 100
    assert events([*quiet[: JUDGED_FROM - 1], 9.0, *quiet]) == []
    assert events([*quiet[:JUDGED_FROM], 9.0, *quiet]) == [JUDGED_FROM]


@pytest.mark.parametrize(("rise", "told"), [(LEAST_RISE - 0.01, []), (LEAST_RISE + 0.01, [100])])
def test_a_small_loss_may_be_several_times_as_large_in_another_batch(rise: float, told: list[int]) -> None:
    assert events([*[0.02] * 100, 0.02 + rise]) == told


def test_a_divergence_is_refused_with_what_happened_and_what_to_do() -> None:
    found = list(seen([*learning(200), *[9.0] * 80]))
    [first, *_] = (step for step, one in enumerate(found) if one.has_diverged)
    refuse_divergence(first, found[first - 1], SftConfig())
    with pytest.raises(ContractError) as caught:
        refuse_divergence(first + 1, found[first], SftConfig())
    assert (caught.value.code, caught.value.param) == (Code.INVALID_VALUE, "learning_rate")
    assert f"for {DIVERGED_STEPS} steps up to step {first + 1} its running mean" in str(caught.value)
    assert "lower sft.learning_rate" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "mend"),
    [
        (BaseConfig(), "set base.loss_spike_rollback to undo such steps, lower base.learning_rate"),
        (SftConfig(), "if it does not fall again, lower sft.learning_rate"),
    ],
)
def test_the_warning_says_what_happened_and_what_to_do(config: OptimConfig, mend: str) -> None:
    text = spike_warning(34, 9.25, Watched(mean=2.0), config)
    assert text.startswith("step 34: loss 9.250 is a spike, the running mean is 2.000")
    assert mend in text
