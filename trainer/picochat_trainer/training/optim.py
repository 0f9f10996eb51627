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
            if isinstance(part, torch.optim.AdamW):
                _step_adamw(part, flag)
            else:
                _step_or_undo(part, flag)

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


def _step_adamw(part: torch.optim.AdamW, flag: Tensor | None) -> None:
    """Fused AdamW leaves everything as it is where `found_inf` is one, which is how GradScaler skips a step."""
    part.found_inf = flag  # type: ignore[attr-defined]
    try:
        part.step()
    finally:
        del part.found_inf  # type: ignore[attr-defined]


@torch.no_grad()
def _step_or_undo(part: torch.optim.Optimizer, flag: Tensor | None) -> None:
    if flag is None:
        part.step()
        return
    parameters = [p for group in part.param_groups for p in group["params"] if p.grad is not None]
    weights = [p.clone() for p in parameters]
    states = [{slot: value.clone() for slot, value in part.state.get(p, {}).items()} for p in parameters]
    part.step()
    for parameter, weight, state in zip(parameters, weights, states, strict=True):
        parameter.copy_(torch.where(flag != 0, weight, parameter))
        for slot, value in part.state[parameter].items():
            before = state.get(slot, torch.zeros_like(value))
            value.copy_(torch.where(flag != 0, before, value))


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
        fused=True,  # also what lets a step be skipped without asking the device
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
