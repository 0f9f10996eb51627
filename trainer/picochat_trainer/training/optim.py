"""The optimizers of a training, and their state as named tensors.

AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on matrices only. Muon (`muon.py`) for the matrices of the
blocks where it is asked for, at the same learning rate; AdamW then has the rest. Every state tensor is placed as its
parameter is: plain, or a DTensor under FSDP2, where the model must be sharded before its optimizer is made.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from picochat_contract.configs import BaseConfig, OptimConfig
from picochat_contract.learning_rates import BETAS, effective_learning_rate, effective_weight_decay
from torch import Tensor, nn

from picochat_trainer.training.muon import Muon

EPS = 1e-8
_BLOCKS = "layers."  # in the names of the parameters that Muon takes


class Optimizers:
    """One or two optimizers that are stepped as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)
        self._part_by_id = {
            id(parameter): part
            for part in self.parts
            for group in part.param_groups
            for parameter in group["params"]
        }

    def step(self, skip: Tensor | None = None) -> None:
        """Update the parameters once; the host waits for nothing.

        `skip` is a 0-d tensor on the parameters' device: where it is not zero, parameters, momentum and step counts
        stay as they are.
        """
        flag = None if skip is None else (skip != 0).to(torch.float32)
        for part in self.parts:
            if isinstance(part, Muon):
                part.update(flag)
            else:
                _step_adamw(part, flag)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def param_groups(self) -> Iterator[dict[str, object]]:
        for part in self.parts:
            yield from part.param_groups

    def part_of(self, parameter: Tensor) -> torch.optim.Optimizer:
        """The optimizer that steps `parameter`."""
        return self._part_by_id[id(parameter)]


def _step_adamw(part: torch.optim.Optimizer, flag: Tensor | None) -> None:
    """Fused AdamW leaves everything as it is where `found_inf` is one, which is how GradScaler skips a step."""
    part.found_inf = flag  # type: ignore[attr-defined]
    try:
        part.step()
    finally:
        del part.found_inf  # type: ignore[attr-defined]


def make_optimizer(model: nn.Module, config: OptimConfig, *, num_ranks: int = 1) -> Optimizers:
    """The optimizer that `config` asks for, at the highest rate of its schedule."""
    rate, decay = effective_learning_rate(config, num_ranks), effective_weight_decay(config, num_ranks)
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    muon: list[nn.Parameter] = []
    if isinstance(config, BaseConfig) and config.optimizer == "muon":
        muon = [p for name, p in named if p.ndim == 2 and _BLOCKS in name]
    taken = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in taken]
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p.ndim >= 2], "weight_decay": decay},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=rate,
        betas=BETAS,
        eps=EPS,
        fused=True,  # also what lets a step be skipped without asking the device
    )
    if not muon:
        return Optimizers([adamw])
    return Optimizers(
        [
            adamw,
            Muon(
                muon,
                lr=rate,
                weight_decay=decay,
                dtype=torch.float32 if config.precision == "float32" else None,
                compiled=compiles_muon(config, muon[0].device),
            ),
        ]
    )


def compiles_muon(config: OptimConfig, device: torch.device) -> bool:
    """On a GPU, unless compilation is off. On a CPU the products are nearly all of the time, and oneDNN does them."""
    return device.type == "cuda" and config.compile != "off"


def set_learning_rate(optimizer: Optimizers, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: Optimizers, model: nn.Module) -> dict[str, Tensor]:
    """The optimizers' state as `slot.parameter` tensors, without pickling anything."""
    return {
        f"{slot}.{name}": value
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.part_of(parameter).state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: Optimizers, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; a parameter without state has not been stepped yet."""
    slots: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        slot, name = key.split(".", 1)
        slots.setdefault(name, {})[slot] = value
    for name, parameter in model.named_parameters():
        # Fused AdamW keeps its step count on the parameter's device.
        state = {slot: value.clone().to(parameter.device) for slot, value in slots.get(name, {}).items()}
        part = optimizer.part_of(parameter)
        if state:
            part.state[parameter] = state
        else:
            part.state.pop(parameter, None)


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
