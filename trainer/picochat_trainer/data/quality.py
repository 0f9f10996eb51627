"""A document's quality score: 100 less what its shape costs. It judges form, never content.

< 200 characters -25, < 1,000 -10; one long line -10; repeated lines > 30 % -25, > 10 % -10; empty lines > 50 % -10;
non-ASCII > 10 % -15, > 5 % -8; control characters or U+FFFD -25.
"""

from dataclasses import dataclass
from typing import Final

from picochat_trainer.data.cleaning.characters import count_broken

LONG_LINE: Final = 1_000  # characters; a text that is one line of this length has lost its line breaks


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    score: int
    """0-100, higher is better."""
    flags: tuple[str, ...]
    num_lines: int
    num_filled_lines: int
    num_non_ascii: int


def measure_quality(text: str, *, num_broken: int | None = None) -> Quality:
    """Score one document; an empty one scores 0.

    `num_broken` counts control characters and U+FFFD where cleaning has taken them out of the text already.
    """
    lines = text.split("\n")
    filled = [line for raw in lines if (line := raw.strip())]
    num_non_ascii = count_non_ascii(text)
    if not filled:
        return Quality(
            score=0, flags=("empty",), num_lines=len(lines), num_filled_lines=0, num_non_ascii=num_non_ascii
        )
    if num_broken is None:
        num_broken = count_broken(text)
    rules = (
        _worst(-len(text), [(-200, "very_short", 25), (-1_000, "short", 10)]),
        ("one_long_line", 10) if len(lines) == 1 and len(text) >= LONG_LINE else None,
        _worst(
            1 - len(set(filled)) / len(filled),
            [(0.30, "many_repeated_lines", 25), (0.10, "repeated_lines", 10)],
        ),
        _worst(1 - len(filled) / len(lines), [(0.50, "many_empty_lines", 10)]),
        _worst(num_non_ascii / len(text), [(0.10, "mostly_non_ascii", 15), (0.05, "non_ascii", 8)]),
        ("control_characters", 25) if num_broken else None,
    )
    penalties = [rule for rule in rules if rule is not None]
    return Quality(
        score=max(0, 100 - sum(cost for _, cost in penalties)),
        flags=tuple(flag for flag, _ in penalties),
        num_lines=len(lines),
        num_filled_lines=len(filled),
        num_non_ascii=num_non_ascii,
    )


def count_non_ascii(text: str) -> int:
    return 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))


def _worst(value: float, rules: list[tuple[float, str, int]]) -> tuple[str, int] | None:
    """The first rule, worst first, whose limit `value` is over."""
    return next(((flag, cost) for limit, flag, cost in rules if value > limit), None)
