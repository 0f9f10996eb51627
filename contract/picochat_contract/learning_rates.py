"""Learning rate, warm-up and weight decay that a training really uses: as given, or derived from model, tokens and batch.

`learning_rate: null` is Step Law's rate (arXiv 2503.04715). `weight_decay: null` keeps the number of steps over which
AdamW averages its updates, 1 / (rate x decay), at the share of the run that "Power Lines" found best
(arXiv 2505.13738). Both hold for Muon too, whose updates are scaled to the size of AdamW's (arXiv 2502.16982).

`warmup_steps: null` is the rule of thumb of Ma and Yarats (arXiv 1910.04209): 2 / (1 - beta2) steps, as many as the second
moment of Adam takes to be an average.

The constants of both laws, those of `batch_size.py` among them, are as several others quote them who do not quote each
other: 1.79, -0.713, 0.307, 0.58 and 0.571 of Step Law, 1.084 and -0.527 (R^2 0.975) of "Power Lines". They were not held
against the text of the papers themselves.
"""

import math
from typing import Final

from picochat_contract.batch_size import law_batch
from picochat_contract.configs import BaseConfig, OptimConfig, Optimizer
from picochat_contract.model_size import num_body_parameters

REFERENCE_ROWS: Final = 8
"""Rows per optimizer step at which `auto_lr_scaling` leaves the configured rate as it is."""
DEFAULT_SFT_RATE: Final = 1e-3
DEFAULT_SFT_DECAY: Final = 0.01
LEAST_DECAY: Final = 0.01
MOST_DECAY: Final = 0.3
"""The law was fitted on long runs; short ones would be told to forget each step at once."""
LAW_MAXIMUM: Final = 3e-3
"""Muon of 0.8M parameters ends 0.03 bits per byte better at 1e-2 after 200 steps of 2,048 tokens, but 0.03 worse after 600
(measured)."""
FITTED_FROM: Final = 60_000_000
"""Parameters of the smallest models that the law was fitted on; of smaller ones it asks for rates that are too high."""
SMALL_ADAMW_MAXIMUM: Final = 2e-3
"""AdamW of 3.2M parameters, 300 steps of 8,192 tokens: 2e-3 ends 0.03 bits per byte better than 1e-3, 0.07 better than 3e-3
(measured)."""

BETAS: Final = (0.9, 0.95)
"""Of AdamW."""
LAW_WARMUP: Final = round(2 / (1 - BETAS[1]))
"""Steps. 40 of them end 0.08 and 0.06 bits per byte better than 15 on two seeds (3.2M parameters, 300 steps of 8,192 tokens at
2e-3; measured)."""
MOST_WARMUP: Final = 0.2
"""Share of a short run's steps."""


def rows_per_step(config: OptimConfig, num_ranks: int) -> int:
    """Rows of one optimizer step over all ranks and accumulation steps."""
    return config.device_batch_size * config.grad_accum_steps * num_ranks


def configured_learning_rate(config: OptimConfig, num_ranks: int) -> float:
    """The rate as given, or as derived where none is; before `auto_lr_scaling`."""
    if config.learning_rate is not None:
        return config.learning_rate
    if not isinstance(config, BaseConfig):
        return DEFAULT_SFT_RATE
    step_tokens = rows_per_step(config, num_ranks) * config.model.sequence_len
    size, tokens = num_body_parameters(config.model), config.max_steps * step_tokens
    return law_learning_rate(size, tokens, step_tokens, config.optimizer)


def effective_learning_rate(config: OptimConfig, num_ranks: int) -> float:
    """The highest rate that the optimizer is given. A derived rate is that of its batch already."""
    rate = configured_learning_rate(config, num_ranks)
    if not config.auto_lr_scaling or config.learning_rate is None:
        return rate
    return rate * math.sqrt(rows_per_step(config, num_ranks) / REFERENCE_ROWS)


def effective_warmup_steps(config: OptimConfig) -> int:
    """Steps over which the rate rises to its highest."""
    if config.warmup_steps is not None:
        return config.warmup_steps
    return law_warmup(config.max_steps)


def effective_weight_decay(config: OptimConfig, num_ranks: int) -> float:
    """The decay that the optimizer is given, before it is multiplied by the rate of the step."""
    if config.weight_decay is not None:
        return config.weight_decay
    if not isinstance(config, BaseConfig):
        return DEFAULT_SFT_DECAY
    tokens = config.max_steps * rows_per_step(config, num_ranks) * config.model.sequence_len
    share = law_timescale(num_body_parameters(config.model), tokens)
    decay = 1 / (config.max_steps * effective_learning_rate(config, num_ranks) * share)
    return min(max(decay, LEAST_DECAY), MOST_DECAY)


def law_warmup(num_steps: int) -> int:
    """Steps of warm-up that suit AdamW in a run of `num_steps`."""
    return min(LAW_WARMUP, int(MOST_WARMUP * num_steps))


def law_learning_rate(
    num_body_parameters: int, num_tokens: int, tokens_per_step: int, optimizer: Optimizer
) -> float:
    """Step Law (arXiv 2503.04715), moved to another batch by its square root (arXiv 2405.14578).

    `num_body_parameters` leaves embedding and head out; `num_tokens` are all that the run trains on.
    """
    rate = 1.79 * math.pow(num_body_parameters, -0.713) * math.pow(num_tokens, 0.307)
    is_small = num_body_parameters < FITTED_FROM and optimizer == "adamw"
    return min(
        SMALL_ADAMW_MAXIMUM if is_small else LAW_MAXIMUM,
        rate * math.sqrt(tokens_per_step / law_batch(num_tokens)),
    )


def law_timescale(num_parameters: int, num_tokens: int) -> float:
    """Share of a run's steps over which AdamW should average its updates ("Power Lines", arXiv 2505.13738).

    The law was fitted with embeddings among the parameters; a config does not know its vocabulary, so callers leave
    them out, which asks for a somewhat shorter average, and more decay, where they are much of the model.
    """
    return 1.084 * math.pow(num_tokens / num_parameters, -0.527)
