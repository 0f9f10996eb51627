from typing import Any

import pytest
import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.training.muon import Muon
from picochat_trainer.training.optim import (
    Optimizers,
    compiles_muon,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

CONFIG = BaseConfig(learning_rate=0.1, weight_decay=0.5)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))


def step(module: nn.Module, optimizer: Optimizers, seed: int) -> None:
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
    assert not any(part.state for part in optimizer.parts)


MUON = BaseConfig(learning_rate=0.01, weight_decay=0.1, optimizer="muon")


def gpt() -> GPT:
    made = GPT(ModelConfig(n_layer=2, n_head=2, n_embd=16, sequence_len=8), 30)
    made.init_weights(1)
    return made


def gpt_step(module: GPT, optimizer: Optimizers, seed: int, skip: torch.Tensor | None = None) -> None:
    tokens = torch.randint(30, (2, 9), generator=torch.Generator().manual_seed(seed))
    module.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    optimizer.step(skip=skip)
    optimizer.zero_grad()


def everything(module: nn.Module, optimizer: Optimizers) -> dict[str, torch.Tensor]:
    tensors = module.state_dict() | optimizer_tensors(optimizer, module)
    return {name: value.clone() for name, value in tensors.items()}


@pytest.mark.parametrize("gradient", [1.0, torch.nan])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_skipped_step_changes_no_weight_momentum_or_step_count(name: str, gradient: float) -> None:
    module = gpt()
    optimizer = make_optimizer(module, MUON.model_copy(update={"optimizer": name}))
    gpt_step(module, optimizer, 1)
    before = everything(module, optimizer)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step(skip=torch.tensor(3))
    after = everything(module, optimizer)
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert any(key.startswith("step.") for key in before)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_step_that_may_be_skipped_but_is_not_is_the_plain_one(name: str) -> None:
    one, other = gpt(), gpt()
    config = MUON.model_copy(update={"optimizer": name})
    first, second = make_optimizer(one, config), make_optimizer(other, config)
    for seed in range(3):
        gpt_step(one, first, seed)
        gpt_step(other, second, seed, skip=torch.tensor(0.0))
    assert all(torch.equal(v, everything(other, second)[k]) for k, v in everything(one, first).items())


class Reads(TorchDispatchMode):
    """Counts how often the host asks for the value of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_host_reads_nothing_in_a_step(name: str) -> None:
    module = gpt()
    optimizer = make_optimizer(module, MUON.model_copy(update={"optimizer": name}))
    gpt_step(module, optimizer, 1)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    skip = torch.tensor(0.0)
    with Reads() as reads:
        optimizer.step(skip=skip)
    assert reads.count == 0
    with Reads() as reads:
        float(skip)
    assert reads.count == 1


def test_a_first_step_that_is_skipped_leaves_the_next_one_to_be_the_first() -> None:
    one, other = gpt(), gpt()
    first, second = make_optimizer(one, MUON), make_optimizer(other, MUON)
    gpt_step(one, first, 1, skip=torch.tensor(1.0))
    for module, optimizer in ((one, first), (other, second)):
        gpt_step(module, optimizer, 2)
    assert all(torch.equal(v, everything(other, second)[k]) for k, v in everything(one, first).items())


@pytest.mark.parametrize(
    ("device", "compile", "compiled"),
    [("cuda", "auto", True), ("cuda", "off", False), ("cpu", "auto", False), ("cpu", "on", False)],
)
def test_muon_is_compiled_on_a_gpu_only(device: str, compile: str, compiled: bool) -> None:
    config = BaseConfig(compile=compile)  # type: ignore[arg-type]
    assert compiles_muon(config, torch.device(device)) is compiled


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    module = gpt()
    optimizer = make_optimizer(module, MUON)
    for name, parameter in module.named_parameters():
        wanted = Muon if "layers." in name and parameter.ndim == 2 else torch.optim.AdamW
        assert isinstance(optimizer.part_of(parameter), wanted), name


def test_a_muon_update_is_of_the_size_of_an_adamw_update() -> None:
    sizes = {}
    for config in (MUON, MUON.model_copy(update={"optimizer": "adamw"})):
        module = gpt()
        before = module.model.layers[0].mlp.up_proj.weight.detach().clone()  # type: ignore[union-attr]
        gpt_step(module, make_optimizer(module, config), 1)
        after = module.model.layers[0].mlp.up_proj.weight.detach()  # type: ignore[union-attr]
        sizes[config.optimizer] = float((after - before).square().mean().sqrt())
    assert 0.1 < sizes["muon"] / sizes["adamw"] < 1.0  # the scale is 0.2 of a sign update


def test_muon_state_that_is_put_back_goes_on_bit_for_bit() -> None:
    first, second = gpt(), gpt()
    first_optimizer, second_optimizer = make_optimizer(first, MUON), make_optimizer(second, MUON)
    for seed in range(3):
        gpt_step(first, first_optimizer, seed)
    second.load_state_dict(first.state_dict())
    load_optimizer_tensors(second_optimizer, second, optimizer_tensors(first_optimizer, first))
    for seed in range(3, 6):
        gpt_step(first, first_optimizer, seed)
        gpt_step(second, second_optimizer, seed)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
