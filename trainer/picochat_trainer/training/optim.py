"""The optimizers of a training, and their state as named tensors.

AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on matrices only. Muon (Jordan et al. 2024; PyTorch's
`torch.optim.Muon`) for the matrices of the blocks where it is asked for, with its update scaled to the size of an
AdamW update (Moonlight, arXiv 2502.16982), so that both take one learning rate; AdamW then has the rest.
Under DDP each rank repeats Muon's orthogonalisation.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from picochat_contract.configs import BaseConfig, OptimConfig
from picochat_contract.learning_rates import effective_learning_rate, effective_weight_decay
from torch import Tensor, nn

BETAS = (0.9, 0.95)
EPS = 1e-8
MUON_MOMENTUM = 0.95
_BLOCKS = "layers."  # in the names of the parameters that Muon takes


class Optimizers:
    """One or two optimizers that are stepped as one."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = tuple(parts)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def param_groups(self) -> Iterator[dict[str, object]]:
        for part in self.parts:
            yield from part.param_groups

    def part_of(self, parameter: Tensor) -> torch.optim.Optimizer:
        """The optimizer that steps `parameter`."""
        return next(
            part
            for part in self.parts
            for group in part.param_groups
            if any(parameter is own for own in group["params"])
        )


def make_optimizer(model: nn.Module, config: OptimConfig, *, num_ranks: int = 1) -> Optimizers:
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
        fused=all(p.device.type in ("cpu", "cuda") for p in rest),
    )
    if not muon:
        return Optimizers([adamw])
    return Optimizers(
        [
            adamw,
            torch.optim.Muon(
                muon,
                lr=rate,
                weight_decay=decay,
                momentum=MUON_MOMENTUM,
                nesterov=True,
                adjust_lr_fn="match_rms_adamw",
            ),
        ]
    )


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
