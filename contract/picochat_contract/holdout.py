"""How much of a corpus base pretraining holds out for validation."""

from typing import Final

MIN_VAL_TOKENS: Final = 1 << 20
"""Held out at least, where that is no more than `MOST_OF_SMALL` of the corpus: enough for bits per byte to +- 0.5 %."""
MOST_OF_SMALL: Final = 0.1


def held_out_fraction(val_fraction: float, num_tokens: int) -> float:
    """The part of a corpus of `num_tokens` that is held out: `val_fraction`, or more where that would be too few tokens."""
    return max(val_fraction, min(MOST_OF_SMALL, MIN_VAL_TOKENS / max(num_tokens, 1)))
