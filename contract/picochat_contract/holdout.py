"""How much of a corpus base pretraining holds out for validation, and how much of that one validation reads."""

from typing import Final

from picochat_contract.configs import OptimConfig

MIN_VAL_TOKENS: Final = 1 << 20
"""Held out at least, where that is no more than `MOST_OF_SMALL` of the corpus: enough for bits per byte to +- 0.5 %."""
MOST_OF_SMALL: Final = 0.1
MAX_VAL_TOKENS: Final = 1 << 20
"""Longer validation text is sampled, in evenly spaced windows."""
MIN_VAL_TOKENS_IN_TRAINING: Final = 1 << 16
SHARE_OF_INTERVAL: Final = 0.125
"""Validation tokens per trained token. On the CPU one takes 0.7 of the time of the other (eager against compiled, 1.5M
parameters, measured; compiled it would be 0.6 and another compilation), so validations take about 9 % of it."""


def held_out_fraction(val_fraction: float, num_tokens: int) -> float:
    """The part of a corpus of `num_tokens` that is held out: `val_fraction`, or more where that would be too few tokens."""
    return max(val_fraction, min(MOST_OF_SMALL, MIN_VAL_TOKENS / max(num_tokens, 1)))


def tokens_in_training(config: OptimConfig, step_tokens: int) -> int:
    """Tokens that a validation between steps may take; the one in the report takes up to MAX_VAL_TOKENS."""
    interval = config.eval_every * step_tokens
    return min(MAX_VAL_TOKENS, max(MIN_VAL_TOKENS_IN_TRAINING, int(SHARE_OF_INTERVAL * interval)))
