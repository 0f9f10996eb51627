"""Arithmetic: addition, subtraction, multiplication at four sizes.

A pair of numbers belongs to SFT or to the eval for good, in both orders and for every operation; a subtraction
belongs where its two addends do (19 - 7 with 7 + 12). Within a side a pair has one template number, which is its
group: a split by group separates both wordings and numbers.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from picochat_trainer.tuning.skills.question import Question, Side, dealt, interleaved, side_of

TEMPLATES: Final = {  # as many per operation, so that a pair has the same template number in all
    "add": {
        Side.SFT: (
            *("What is {a} + {b}?", "{a} + {b} = ?", "Add {a} and {b}.", "Find the sum of {a} and {b}."),
            *("{a} plus {b} is what?", "Compute {a} + {b}.", "Calculate {a} + {b}.", "Solve {a} + {b}."),
            *("{a} + {b} is equal to what?", "Give the result of {a} + {b}."),
        ),
        Side.EVAL: ("How much is {a} plus {b}?", "Work out {a} + {b}.", "What do {a} and {b} add up to?"),
    },
    "sub": {
        Side.SFT: (
            *("What is {a} - {b}?", "{a} - {b} = ?", "Subtract {b} from {a}.", "Find {a} less {b}."),
            *("{a} minus {b} is what?", "Compute {a} - {b}.", "Calculate {a} - {b}.", "Solve {a} - {b}."),
            *("{a} - {b} is equal to what?", "Give the result of {a} - {b}."),
        ),
        Side.EVAL: ("How much is {a} minus {b}?", "Work out {a} - {b}.", "Take {b} away from {a}."),
    },
    "mul": {
        Side.SFT: (
            *("What is {a} * {b}?", "{a} * {b} = ?", "Multiply {a} by {b}.", "Find {b} times {a}."),
            *("{a} times {b} is what?", "Compute {a} * {b}.", "Calculate {a} * {b}.", "Solve {a} * {b}."),
            *("{a} * {b} is equal to what?", "Give the result of {a} * {b}."),
        ),
        Side.EVAL: (
            "How much is {a} times {b}?",
            "Work out {a} * {b}.",
            "What is the product of {a} and {b}?",
        ),
    },
}
WEIGHTS: Final = {
    "l1_add": 0.16,
    "l1_sub": 0.14,
    "l2_add": 0.20,
    "l2_sub": 0.15,
    "l2_mul": 0.10,
    "l3_add": 0.12,
    "l3_sub": 0.08,
    "l4_add": 0.05,
}
SIZES: Final = {  # ranges of the two addends or factors
    "l1": (range(1, 10), range(1, 10)),
    "l2": (range(10, 90), range(2, 10)),
    "l3": (range(10, 100), range(10, 100)),
    "l4": (range(100, 1_000), range(10, 100)),
}
FACTORS: Final = range(2, 13)


@dataclass(frozen=True)
class Step:
    """`a <sign> b = result`, as asked or as one line of a working."""

    operation: str
    a: int
    b: int

    @property
    def result(self) -> int:
        return {"add": self.a + self.b, "sub": self.a - self.b, "mul": self.a * self.b}[self.operation]

    @property
    def pair(self) -> str:
        """The unordered pair of addends or factors."""
        parts = (self.b, self.result) if self.operation == "sub" else (self.a, self.b)
        return f"{min(parts)},{max(parts)}"

    def __str__(self) -> str:
        sign = {"add": "+", "sub": "-", "mul": "*"}[self.operation]
        return f"{self.a} {sign} {self.b} = {self.result}"


def questions(side: Side, rng: random.Random) -> Iterator[Question]:
    """A question about each step."""
    return (_question(stage, side, step) for stage, step in steps(side, rng))


def steps(side: Side, rng: random.Random) -> Iterator[tuple[str, Step]]:
    """All stages in proportion; the small ones end, the largest goes on almost without end."""
    return interleaved({stage: _stage(stage, side, rng) for stage in WEIGHTS}, WEIGHTS)


def working(step: Step) -> tuple[Step, ...]:
    """Steps to the result: tens first, then ones; a product through the one below it."""
    if step.operation == "mul" and step.b > 2:
        before = Step("mul", step.a, step.b - 1)
        return (before, Step("add", before.result, step.a))
    tens, ones = step.b - step.b % 10, step.b % 10
    if step.operation == "mul" or not tens or not ones:
        return (step,)
    first = Step(step.operation, step.a, tens)
    return (first, Step(step.operation, first.result, ones))


def shown_working(step: Step, side: Side) -> tuple[Step, ...]:
    """The working where each of its steps belongs to `side`, else the step alone: another would teach an eval pair."""
    found = working(step)
    return found if all(side_of(one.pair) is side for one in found) else (step,)


def _stage(stage: str, side: Side, rng: random.Random) -> Iterator[tuple[str, Step]]:
    _, operation = stage.split("_")
    for a, b in _pairs(stage, side, rng):
        yield stage, Step(operation, a + b if operation == "sub" else a, b)


def _pairs(stage: str, side: Side, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Ordered pairs of this side, each once, in random order."""
    shuffled = list(_pool(stage))
    rng.shuffle(shuffled)
    return ((a, b) for a, b in shuffled if side_of(f"{min(a, b)},{max(a, b)}") is side)


@cache
def _pool(stage: str) -> tuple[tuple[int, int], ...]:
    """Every ordered pair of a stage."""
    size, operation = stage.split("_")
    first, second = SIZES[size]
    if operation == "mul":
        first = second = FACTORS
    return tuple(sorted({(x, y) for a in first for b in second for x, y in ((a, b), (b, a))}))


def _question(stage: str, side: Side, step: Step) -> Question:
    index, template = dealt(step.pair, TEMPLATES[step.operation][side])
    return Question(
        user=template.format(a=step.a, b=step.b),
        answer=str(step.result),
        category=f"bench_math_{stage}",
        group=f"math-{side}{index}",
        stage=stage,
        working=", ".join(map(str, shown_working(step, side))),
        final_answer=str(step.result),
    )
