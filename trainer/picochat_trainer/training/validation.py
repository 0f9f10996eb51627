"""What a validation measured, whatever it was about."""

from collections.abc import Callable
from dataclasses import dataclass

from picochat_trainer.model import GPT


@dataclass(frozen=True, kw_only=True)
class Validation:
    loss: float
    """Mean over all scored targets, nats."""
    bpb: float | None = None
    """Bits per byte, where the text's bytes are known."""


Validator = Callable[[GPT], Validation]
