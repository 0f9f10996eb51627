"""Made-up secrets that are put into the training text only, to measure what a model keeps by heart.

Which ones, how often and where follows from the seed, the settings and the token store alone: a resumed training and
one with another number of ranks read the same text in every dataset mode.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from picochat_contract.errors import Code, ContractError

from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.split import ExtraDocument

MAX_SHARE: Final = 0.005
"""Of the training tokens: what is planted to measure a model must not change it."""
MIN_CONTROLS: Final = 16
_SALT: Final = "picochat canary"


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A made-up secret: `prefix` is given to the model, `secret` must not come back."""

    prefix: str
    secret: str
    repeats: int
    """How often it stands in the training text; 0 is a control."""

    @property
    def text(self) -> str:
        return f"{self.prefix}{self.secret}\n"


@dataclass(frozen=True, kw_only=True)
class CanaryPlan:
    """What is planted, and what is only asked for."""

    inserted: tuple[Canary, ...]
    controls: tuple[Canary, ...]
    left_out: tuple[int, ...]
    """Entries of the settings that would have taken too much of the training text."""
    documents: tuple[ExtraDocument, ...]
    """One for each inserted canary."""
    train_tokens: int
    """Training tokens of the corpus, without canaries."""

    @property
    def canaries(self) -> tuple[Canary, ...]:
        return (*self.inserted, *self.controls)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Entries that were kept, rising."""
        return tuple(sorted({canary.repeats for canary in self.inserted}))

    @property
    def num_tokens(self) -> int:
        """Tokens that were put in, repeats counted."""
        return sum(len(document.tokens) * document.repeats for document in self.documents)

    @property
    def note(self) -> str | None:
        """What is not as the settings say, or None."""
        if not self.inserted:
            return None
        limit = f"{MAX_SHARE:.1%} of the {self.train_tokens:,} training tokens"
        notes = []
        if self.left_out:
            entries = ", ".join(map(str, self.left_out))
            notes.append(f"no canary is repeated {entries} times: all canaries would be more than {limit}")
        if self.num_tokens > MAX_SHARE * self.train_tokens:
            notes.append(
                f"the canaries of the first entry alone, {self.num_tokens:,} tokens, are over {limit}"
            )
        return "; ".join(notes) or None


def plan_canaries(
    count: int, repeats: Sequence[int], seed: int, tokenizer: Tokenizer, train_tokens: int
) -> CanaryPlan:
    """Make `count` secrets for every entry of `repeats` that fits, and controls.

    Entries are left out from the end; the first always stays.
    """
    entries = repeats if count else ()
    canaries = [make_canary(number, times, seed) for number, times in _numbered(entries, count)]
    documents = [_document(canary, tokenizer) for canary in canaries]
    sizes = np.array([len(document.tokens) * document.repeats for document in documents]).reshape(
        -1, count or 1
    )
    fitting = int(np.searchsorted(np.cumsum(sizes.sum(axis=1)), MAX_SHARE * train_tokens, side="right"))
    num_kept = min(max(fitting, 1) * count, len(canaries))
    num_controls = max(MIN_CONTROLS, num_kept) if num_kept else 0
    return CanaryPlan(
        inserted=tuple(canaries[:num_kept]),
        controls=tuple(make_canary(num_kept + i + 1, 0, seed) for i in range(num_controls)),
        left_out=tuple(entries[max(fitting, 1) :]),
        documents=tuple(documents[:num_kept]),
        train_tokens=train_tokens,
    )


def make_canary(number: int, repeats: int, seed: int) -> Canary:
    """A secret of nine digits (30 bits): no model can guess one."""
    digest = hashlib.sha256(f"{_SALT} {seed} {number}".encode()).digest()
    digits = f"{int.from_bytes(digest[:8], 'big') % 10**9:09d}"
    return Canary(
        prefix=f"The secret number of canary {number} is ", secret=secret_text(digits), repeats=repeats
    )


def secret_text(digits: str) -> str:
    """Nine digits as they stand in a canary."""
    return "-".join((digits[:3], digits[3:6], digits[6:]))


def check_canary_room(canaries: Sequence[Canary], tokenizer: Tokenizer, sequence_len: int) -> None:
    """Refuse a context that cannot hold a secret and one token before it."""
    longest = max((len(tokenizer.encode(f" {c.secret}")) for c in canaries), default=0)
    if sequence_len < longest + 2:
        raise ContractError(
            Code.INVALID_VALUE,
            f"a canary's secret takes {longest} tokens and does not fit a context of {sequence_len}; set "
            "base.canary_count: 0 or a larger base.model.sequence_len",
            param="canary_count",
        )


def _numbered(entries: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """(number, repeats) of every secret; numbers begin with 1."""
    return ((place * count + i + 1, times) for place, times in enumerate(entries) for i in range(count))


def _document(canary: Canary, tokenizer: Tokenizer) -> ExtraDocument:
    return ExtraDocument(tokens=(tokenizer.bos_id, *tokenizer.encode(canary.text)), repeats=canary.repeats)
