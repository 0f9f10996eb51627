import torch
from picochat_contract.configs import BaseConfig
from picochat_trainer.training.optim import (
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from torch import nn

CONFIG = BaseConfig(learning_rate=0.1, weight_decay=0.5)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
    module(x).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_only_matrices_are_decayed() -> None:
    optimizer = make_optimizer(model(), CONFIG)
    decay = {p.ndim: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {2: 0.5, 1: 0.0}


def test_the_learning_rate_is_set_in_all_groups() -> None:
    optimizer = make_optimizer(model(), CONFIG)
    set_learning_rate(optimizer, 0.25)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}


def test_state_that_is_put_back_goes_on_bit_for_bit() -> None:
    first = model()
    first_optimizer = make_optimizer(first, CONFIG)
    for seed in range(3):
        step(first, first_optimizer, seed)
    second = model()
    second.load_state_dict(first.state_dict())
    second_optimizer = make_optimizer(second, CONFIG)
    load_optimizer_tensors(second_optimizer, second, optimizer_tensors(first_optimizer, first))
    for seed in range(3, 6):
        step(first, first_optimizer, seed)
        step(second, second_optimizer, seed)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_before_the_first_step_there_is_no_state() -> None:
    module = model()
    optimizer = make_optimizer(module, CONFIG)
    assert optimizer_tensors(optimizer, module) == {}
    load_optimizer_tensors(optimizer, module, {})
    assert not optimizer.state
