"""Learning rates that depend on the batch: the rate a run really uses, and the one that a published law would give."""

import math
from typing import Final

from picochat_contract.configs import OptimConfig

REFERENCE_ROWS: Final = 8
"""Rows per optimizer step at which `auto_lr_scaling` leaves the configured rate as it is."""
LAW_MAXIMUM: Final = 3e-3
"""The law was fitted from 60M to 1B parameters; for smaller models it asks for rates at which training is unstable."""


def rows_per_step(config: OptimConfig, num_ranks: int) -> int:
    """Rows of one optimizer step over all ranks and accumulation steps."""
    return config.device_batch_size * config.grad_accum_steps * num_ranks


def effective_learning_rate(config: OptimConfig, num_ranks: int) -> float:
    """The highest rate that the optimizer is given."""
    if not config.auto_lr_scaling:
        return config.learning_rate
    return config.learning_rate * math.sqrt(rows_per_step(config, num_ranks) / REFERENCE_ROWS)


def law_learning_rate(num_body_parameters: int, num_tokens: int, tokens_per_step: int) -> float:
    """Step Law (arXiv 2503.04715), moved to another batch by its square root (arXiv 2405.14578).

    `num_body_parameters` leaves embedding and head out; `num_tokens` are all that the run trains on.
    """
    rate = 1.79 * math.pow(num_body_parameters, -0.713) * math.pow(num_tokens, 0.307)
    batch = 0.58 * math.pow(num_tokens, 0.571)
    return min(LAW_MAXIMUM, rate * math.sqrt(tokens_per_step / batch))
