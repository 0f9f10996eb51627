"""Made-up secrets that are put into the training text only, to measure what a model keeps by heart."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.split import ExtraDocument

_SALT = "picochat canary"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A made-up secret: `prefix` is given to the model, `secret` must not come back."""

    prefix: str
    secret: str

    @property
    def text(self) -> str:
        return f"{self.prefix}{self.secret}\n"


def make_canaries(count: int, seed: int) -> tuple[Canary, ...]:
    """Secrets of nine digits (30 bits): no model can guess one."""
    canaries = []
    for index in range(count):
        digest = hashlib.sha256(f"{_SALT} {seed} {index}".encode()).digest()
        digits = f"{int.from_bytes(digest[:8], 'big') % 10**9:09d}"
        secret = "-".join((digits[:3], digits[3:6], digits[6:]))
        canaries.append(Canary(prefix=f"The secret number of canary {index + 1} is ", secret=secret))
    return tuple(canaries)


def canary_documents(canaries: Sequence[Canary], tokenizer: Tokenizer) -> list[ExtraDocument]:
    """Each canary as a document of its own, once."""
    return [ExtraDocument(tokens=(tokenizer.bos_id, *tokenizer.encode(c.text))) for c in canaries]
