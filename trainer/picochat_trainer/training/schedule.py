"""The learning rate of each step: linear warm-up, then constant, linear or cosine decay."""

import math

from picochat_contract.configs import OptimConfig
from picochat_contract.learning_rates import effective_learning_rate


def learning_rate(config: OptimConfig, step: int, *, num_ranks: int = 1) -> float:
    """The rate of optimizer step `step`, which counts from 0; it ends at `min_lr_ratio` of the peak."""
    peak = effective_learning_rate(config, num_ranks)
    if step < config.warmup_steps:
        return peak * (step + 1) / config.warmup_steps
    if config.lr_decay == "none":
        return peak
    last = max(config.max_steps - 1, config.warmup_steps)
    done = (step - config.warmup_steps) / max(last - config.warmup_steps, 1)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if config.lr_decay == "cosine" else 1 - done
    return peak * (config.min_lr_ratio + (1 - config.min_lr_ratio) * shape)
