"""Loss spikes are seen, undone, and told; ranks cannot have them undone."""

import math

import pytest
import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import ContractError
from picochat_trainer.training.optim import make_optimizer, optimizer_tensors
from picochat_trainer.training.spikes import (
    LEAST_RATE_SCALE,
    SpikeGuard,
    is_spike,
    next_baseline,
    next_rate_scale,
)
from torch import nn

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


def test_a_rollback_puts_weights_and_optimizer_back() -> None:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = make_optimizer(module, CONFIG)

    def step() -> None:
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    guard = SpikeGuard(module, optimizer, world_size=1, saved={})
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    state = {name: value.clone() for name, value in optimizer_tensors(optimizer, module).items()}
    step()
    assert not torch.equal(module.weight, weights["weight"])
    guard.roll_back()
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(v, state[k]) for k, v in optimizer_tensors(optimizer, module).items())


def test_more_than_one_process_is_refused_with_what_to_do() -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(ContractError, match="nproc_per_node to 1"):
        SpikeGuard(module, make_optimizer(module, CONFIG), world_size=2, saved={})
