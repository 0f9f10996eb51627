"""AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on matrices only, and its state as named tensors."""

import torch
from picochat_contract.configs import OptimConfig
from torch import Tensor, nn

BETAS = (0.9, 0.95)
EPS = 1e-8
_SLOTS = ("step", "exp_avg", "exp_avg_sq")


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for _, p in named if p.ndim >= 2]
    vectors = [p for _, p in named if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") for _, p in named)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=BETAS, eps=EPS, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as `slot.parameter` tensors, without pickling anything."""
    return {
        f"{slot}.{name}": optimizer.state[parameter][slot]
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
        for slot in _SLOTS
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave; a parameter without state has not been stepped yet."""
    for name, parameter in model.named_parameters():
        if f"step.{name}" not in tensors:
            continue
        state = {slot: tensors[f"{slot}.{name}"].clone() for slot in _SLOTS}
        # Fused AdamW keeps its step count on the parameter's device.
        optimizer.state[parameter] = {slot: value.to(parameter.device) for slot, value in state.items()}
