"""Loss spikes are seen some steps late, undone to the bit, and end a training where they go on."""

import math

import pytest
import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import ContractError
from picochat_trainer.training.ema import Ema
from picochat_trainer.training.optim import Optimizers, make_optimizer, optimizer_tensors
from picochat_trainer.training.spikes import (
    GOES_ON_STEPS,
    LEAST_RATE_SCALE,
    SNAPSHOT_EVERY,
    Judgement,
    SpikeGuard,
    is_spike,
    judgement,
    next_baseline,
    next_rate_scale,
    rate_scale_after,
)
from torch import Tensor, nn

CONFIG = BaseConfig(learning_rate=0.1)


@pytest.mark.parametrize(
    ("loss", "baseline", "step", "spike"),
    [
        (2.6, 1.0, 10, True),
        (2.4, 1.0, 10, False),
        (9.0, 1.0, 2, False),  # the mean is not trusted yet
        (9.0, None, 0, False),
        (math.nan, None, 0, True),
        (math.inf, 1.0, 10, True),
    ],
)
def test_a_spike_is_far_over_the_running_mean_or_not_finite(
    loss: float, baseline: float | None, step: int, spike: bool
) -> None:
    assert is_spike(loss, baseline, step) is spike


def test_the_running_mean_starts_at_the_first_loss_and_moves_slowly() -> None:
    assert next_baseline(None, 4.0) == 4.0
    assert next_baseline(4.0, 2.0) == pytest.approx(3.9)


def test_the_rate_is_halved_down_to_a_floor() -> None:
    scale = 1.0
    for _ in range(9):
        scale = next_rate_scale(scale)
    assert (next_rate_scale(1.0), scale) == (0.5, LEAST_RATE_SCALE)


def test_the_first_spike_of_several_losses_is_named_with_the_mean_before_it() -> None:
    found = judgement([1.0, 1.0, 5.0, 9.0], 1.0, 10)
    assert found == Judgement(baseline=1.0, spike_step=12, spike_loss=5.0)


def test_good_losses_move_the_mean_as_one_by_one() -> None:
    mean = next_baseline(next_baseline(2.0, 1.0), 3.0)
    assert judgement([1.0, 3.0], 2.0, 6) == Judgement(baseline=mean)


def test_spikes_that_go_on_at_the_smallest_rate_end_the_training() -> None:
    assert rate_scale_after(50, 1.0, [49]) == 0.5
    with pytest.raises(
        ContractError, match=r"jumped at step 50 and 2 times before it, last at step 40.*lower base"
    ):
        rate_scale_after(50, LEAST_RATE_SCALE, [30, 40])


def test_a_spike_long_after_the_others_is_undone_even_at_the_smallest_rate() -> None:
    assert rate_scale_after(40 + GOES_ON_STEPS + 1, LEAST_RATE_SCALE, [30, 40]) == LEAST_RATE_SCALE


class Small:
    """A matrix in training, with a running mean and a guard."""

    def __init__(self, saved: dict[str, Tensor] | None = None, *, like: "Small | None" = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 2)
        self.optimizer: Optimizers = make_optimizer(self.module, CONFIG)
        self.ema = Ema(self.module, 0.9)
        if like is not None:
            self.module.load_state_dict(like.module.state_dict())
        self.guard = SpikeGuard(self.module, self.optimizer, saved=saved or {}, ema=self.ema)

    def step(self) -> None:
        self.module(torch.ones(1, 3)).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def everything(self) -> dict[str, Tensor]:
        tensors = self.module.state_dict() | optimizer_tensors(self.optimizer, self.module) | self.ema.tensors
        return {name: value.clone() for name, value in tensors.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_spike_takes_weights_optimizer_and_mean_back_to_the_last_good_check() -> None:
    small = Small()
    small.step()
    small.guard.add(torch.tensor(1.0))
    assert small.guard.judge(0, None) == Judgement(baseline=1.0)
    good = small.everything()
    for loss in (1.0, math.nan, 1.0):
        small.step()
        small.guard.add(torch.tensor(loss))
    found = small.guard.judge(3, 1.0)
    assert (found.spike_step, found.baseline) == (2, 1.0)
    assert same(small.everything(), good)


def test_a_new_snapshot_takes_the_memory_of_the_one_before() -> None:
    small = Small()
    small.step()
    small.guard.snapshot()  # the first that has states of the optimizer
    before = {name: value.data_ptr() for name, value in small.guard.tensors.items() if value.numel() > 1}
    kept = {name: small.guard.tensors[name].clone() for name in before}
    small.step()
    small.guard.snapshot()
    after = small.guard.tensors
    assert {name: after[name].data_ptr() for name in before} == before
    assert not any(torch.equal(value, after[name]) for name, value in kept.items())


def test_without_a_spike_the_snapshot_moves_on() -> None:
    small = Small()
    small.step()
    small.guard.add(torch.tensor(1.0))
    small.guard.judge(SNAPSHOT_EVERY, 1.0)
    good = small.everything()
    small.step()
    small.guard.roll_back()
    assert same(small.everything(), good)


def test_losses_not_yet_judged_are_judged_after_a_resume() -> None:
    small = Small()
    small.guard.add(torch.tensor(1.0))
    small.guard.add(torch.tensor(7.0))
    resumed = Small(saved=small.guard.tensors, like=small)
    resumed.guard.add(torch.tensor(1.0))
    assert resumed.guard.judge(10, 1.0) == Judgement(baseline=1.0, spike_step=9, spike_loss=7.0)
    assert resumed.guard.tensors["losses"].numel() == 0


def test_checks_are_rare() -> None:
    due = [step for step in range(30) if SpikeGuard.is_due(step)]
    assert due == [0, SNAPSHOT_EVERY, 2 * SNAPSHOT_EVERY]
