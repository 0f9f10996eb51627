"""The running mean of the weights: its arithmetic, its state, and putting it into the model and out again."""

import pytest
import torch
from picochat_trainer.training.ema import Ema
from torch import nn


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


def move(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def test_the_mean_is_that_of_a_plain_loop_with_a_decay_that_warms_up(module: nn.Module) -> None:
    ema = Ema(module, 0.5)
    wanted = module[0].weight.detach().double()  # type: ignore[index]
    for t in range(1, 30):
        move(module, t)
        ema.update()
        decay = min(0.5, (1 + t) / (10 + t))
        wanted = decay * wanted + (1 - decay) * module[0].weight.detach().double()  # type: ignore[index]
    assert torch.allclose(ema.tensors["mean.0.weight"].double(), wanted, rtol=1e-5, atol=1e-5)


def test_the_mean_is_float32_and_its_own_memory(module: nn.Module) -> None:
    ema = Ema(module.to(torch.bfloat16), 0.9)
    before = ema.tensors["mean.0.weight"].clone()
    move(module, 1)
    assert before.dtype == torch.float32
    assert torch.equal(ema.tensors["mean.0.weight"], before)
    ema.update()
    assert not torch.equal(ema.tensors["mean.0.weight"], before)


def test_a_loaded_mean_goes_on_bit_for_bit(module: nn.Module) -> None:
    first = Ema(module, 0.99)
    for seed in range(3):
        move(module, seed)
        first.update()
    second = Ema(module, 0.99)
    second.load({name: value.clone() for name, value in first.tensors.items()})
    move(module, 9)
    first.update()
    second.update()
    assert all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())
    assert int(second.tensors["num_updates"]) == 4


def test_applied_puts_the_mean_in_and_the_weights_back_bit_for_bit(module: nn.Module) -> None:
    ema = Ema(module, 0.9)
    move(module, 1)
    ema.update()
    own = {name: value.clone() for name, value in module.state_dict().items()}
    with ema.applied():
        assert torch.equal(module[0].weight, ema.tensors["mean.0.weight"])  # type: ignore[index]
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_the_weights_come_back_even_when_the_body_raises(module: nn.Module) -> None:
    ema = Ema(module, 0.9)
    move(module, 1)
    own = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(KeyError), ema.applied():
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_what_is_not_trained_has_no_mean(module: nn.Module) -> None:
    module[1].requires_grad_(False)  # type: ignore[index]
    assert set(Ema(module, 0.9).tensors) == {"mean.0.weight", "mean.0.bias", "num_updates"}
