"""What a validation measured, whatever it was about, and how sure it is of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.model import GPT


@dataclass(frozen=True, kw_only=True)
class Validation:
    loss: float
    """Mean over all scored targets, nats."""
    bpb: float | None = None
    """Bits per byte, where the text's bytes are known."""
    loss_stderr: float | None = None
    """Standard error of `loss` as an estimate for all such text; None with fewer than two clusters."""
    bpb_stderr: float | None = None


Validator = Callable[[GPT], Validation]
"""Scores the model as it is, in the mode and number format that the caller has set. All ranks call it."""


def ratio(totals: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[float, float | None]:
    """sum(totals) / sum(sizes) and its standard error, with each pair as one draw; pairs of size 0 are none.

    The ratio estimator, linearised (Cochran 1977, Sampling Techniques, chapter 6). Tokens of one document are alike, so
    that a document, not a token, is what was drawn (Miller 2024, arXiv 2411.00640).
    """
    totals, sizes = totals[sizes > 0], sizes[sizes > 0]
    value = float(totals.sum() / sizes.sum())
    count = len(sizes)
    if count < 2:
        return value, None
    residuals = totals - value * sizes
    variance = count / (count - 1) * float(np.sum(residuals**2)) / float(sizes.sum()) ** 2
    return value, float(np.sqrt(variance))
