"""A document's quality score: 100 less what its shape costs. It judges form, never content.

< 200 characters -25, < 1,000 -10; one long line -10; repeated lines > 30 % -25, > 10 % -10; empty lines > 50 % -10;
non-ASCII > 10 % -15, > 5 % -8; control characters or U+FFFD -25.
"""

import re
from dataclasses import dataclass
from typing import Final

LONG_LINE: Final = 1_000  # characters; a text that is one line of this length has lost its line breaks
_BROKEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")


@dataclass(frozen=True, kw_only=True)
class Quality:
    score: int
    """0-100, higher is better."""
    flags: tuple[str, ...]


def measure_quality(text: str) -> Quality:
    """Score one document; an empty one scores 0."""
    if not text.strip():
        return Quality(score=0, flags=("empty",))
    penalties = [rule for rule in (*_size(text), *_lines(text), *_characters(text)) if rule is not None]
    score = 100 - sum(cost for _, cost in penalties)
    return Quality(score=max(0, score), flags=tuple(flag for flag, _ in penalties))


def count_non_ascii(text: str) -> int:
    return 0 if text.isascii() else len(_NON_ASCII.findall(text))


def _size(text: str) -> list[tuple[str, int] | None]:
    return [_worst(-len(text), [(-200, "very_short", 25), (-1_000, "short", 10)])]


def _lines(text: str) -> list[tuple[str, int] | None]:
    lines = text.split("\n")
    filled = [line.strip() for line in lines if line.strip()]
    repeated = 1 - len(set(filled)) / len(filled)
    empty = 1 - len(filled) / len(lines)
    one_line = ("one_long_line", 10) if len(lines) == 1 and len(text) >= LONG_LINE else None
    return [
        one_line,
        _worst(repeated, [(0.30, "many_repeated_lines", 25), (0.10, "repeated_lines", 10)]),
        _worst(empty, [(0.50, "many_empty_lines", 10)]),
    ]


def _characters(text: str) -> list[tuple[str, int] | None]:
    rate = count_non_ascii(text) / len(text)
    return [
        _worst(rate, [(0.10, "mostly_non_ascii", 15), (0.05, "non_ascii", 8)]),
        ("control_characters", 25) if _BROKEN.search(text) else None,
    ]


def _worst(value: float, rules: list[tuple[float, str, int]]) -> tuple[str, int] | None:
    """The first rule, worst first, whose limit `value` is over."""
    return next(((flag, cost) for limit, flag, cost in rules if value > limit), None)
