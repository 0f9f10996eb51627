"""What all skills share: the two sides, a generated question, and how things are dealt to sides and templates.

SFT and eval never share a template, a fact, a word or a number pair: each skill either keeps two lists, or asks
`side_of` about the thing itself, which answers the same for every seed.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeVar

EVAL_SHARE: Final = 5  # one in this many words or number pairs belongs to the eval
T = TypeVar("T")


class Side(StrEnum):
    SFT = "sft"
    EVAL = "eval"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt with its right answer and how a reply is judged."""

    user: str
    answer: str
    category: str
    group: str
    """Template and fact family: no other group has its wording, its facts, its words or its number pairs."""
    stage: str
    working: str | None = None
    """Steps to the answer, for the scratchpad style."""
    answerable: bool = True
    final_answer: str | None = None
    """Judged by its final answer where given."""
    must_include: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    """Phrases of which a right reply holds at least one."""
    must_not_include: tuple[str, ...] = ()
    choice_labels: tuple[str, ...] = ()
    level: str = "transfer"


class Skill(Protocol):
    """A skill module."""

    def questions(self, side: Side, rng: random.Random) -> Iterator[Question]: ...


def stable_hash(text: str) -> int:
    """A number that is the same on every machine and for every seed."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def side_of(thing: str) -> Side:
    """The side that a word or number pair belongs to, for good."""
    return Side.EVAL if stable_hash(f"side {thing}") % EVAL_SHARE == 0 else Side.SFT


def dealt(thing: str, options: Sequence[T]) -> tuple[int, T]:
    """The one option (and its index) that `thing` is always given."""
    index = stable_hash(f"deal {thing}") % len(options)
    return index, options[index]


def decks(cards: Sequence[T], rng: random.Random) -> Iterator[T]:
    """All cards in random order, again and again: every prefix is balanced."""
    while True:
        yield from rng.sample(cards, len(cards))


def interleaved(streams: Mapping[str, Iterator[T]], weights: Mapping[str, float]) -> Iterator[T]:
    """Draw from `streams` in proportion to `weights`; a stream that ends leaves its share to the others."""
    live = dict(streams)
    credit = dict.fromkeys(live, 0.0)
    while live:
        for name in live:
            credit[name] += weights[name]
        name = max(live, key=lambda name: credit[name])
        credit[name] -= sum(weights[other] for other in live)
        try:
            yield next(live[name])
        except StopIteration:
            del live[name]
