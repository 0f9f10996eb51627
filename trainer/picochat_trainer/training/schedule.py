"""The learning rate of each step: linear warm-up, then constant, linear, cosine, or constant with a linear end."""

import math

from picochat_contract.configs import OptimConfig
from picochat_contract.learning_rates import effective_learning_rate, effective_warmup_steps


def learning_rate(config: OptimConfig, step: int, *, num_ranks: int = 1) -> float:
    """The rate of optimizer step `step`, which counts from 0; it ends at `min_lr_ratio` of the peak.

    Only `max_steps` is the length of the schedule: `stop_after_steps` and `max_minutes` cut it off where it is.
    """
    peak = effective_learning_rate(config, num_ranks)
    warmup = effective_warmup_steps(config)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (config.min_lr_ratio + (1 - config.min_lr_ratio) * _shape(config, step))


def num_decay_steps(config: OptimConfig) -> int:
    """The last steps of `wsd`, whose rate is below the peak; the warm-up keeps its steps."""
    wanted = round(config.decay_fraction * config.max_steps)
    return max(0, min(wanted, config.max_steps - effective_warmup_steps(config)))


def _shape(config: OptimConfig, step: int) -> float:
    """From 1 at the peak to 0 at the end, for a step behind the warm-up."""
    if config.lr_decay == "none":
        return 1.0
    if config.lr_decay == "wsd":  # warm-up, stable, decay: arXiv 2404.06395; linear, as in arXiv 2405.18392
        steps = num_decay_steps(config)
        return min(1.0, (config.max_steps - 1 - step) / steps) if steps else 1.0
    warmup = effective_warmup_steps(config)
    last = max(config.max_steps - 1, warmup)
    done = (step - warmup) / max(last - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * done)) if config.lr_decay == "cosine" else 1 - done
