"""Drills: the math, spelling and choice skills as plain text for base training, from the SFT side only.

No word, number pair or fact of the eval side is in them, and no wording of either side's chat rows: what SFT holds out
and what the eval asks stays unseen.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.tuning.skills import arithmetic, choice, spelling
from picochat_trainer.tuning.skills.arithmetic import Step
from picochat_trainer.tuning.skills.question import Side, interleaved

SIDE: Final = Side.SFT
MAX_REPEATS: Final = 20_000  # drills in a row that were there before: the supply is used up
MATH_TEMPLATES: Final = {
    "add": ("{a} + {b} = {c}", "{a} and {b} more makes {c}.", "From {a} go {b} further: {c}."),
    "sub": ("{a} - {b} = {c}", "{a} without {b} leaves {c}.", "From {a} go {b} back: {c}."),
    "mul": ("{a} * {b} = {c}", "{b} rows of {a} hold {c}.", "{a} taken {b} times makes {c}."),
}
SPELLING_TEMPLATES: Final = {
    "count": ("{word} is {spaced}: {answer} letters.", "{spaced} makes {word}, {answer} letters long."),
    "first": ("{word} is {spaced} and begins with {answer}.", "At the beginning of {word} stands {answer}."),
    "last": ("{word} is {spaced} and ends with {answer}.", "At the end of {word} stands {answer}."),
    "spaced": ("{word} is made of {answer}", "{answer} is read {word}."),
    "reverse": (
        "{word} from back to front is {answer}.",
        "The letters {spaced} turned around give {answer}.",
    ),
}
NUMBER_TEMPLATES: Final = {
    "largest": "Of {numbers} the largest is {answer}.",
    "smallest": "Of {numbers} the smallest is {answer}.",
}
NUM_OPTIONS: Final = 3
"""The chat rows have four: a drill is never the prompt of one."""


@dataclass(frozen=True, kw_only=True)
class Drill:
    text: str
    keys: tuple[str, ...]
    """Everything in it that belongs to one side: words, `a,b` for number pairs, `choice n` for compared numbers,
    `relation thing` for facts."""


def math_drills(rng: random.Random) -> Iterator[Drill]:
    """A step, or half of the time its working."""
    for _, step in arithmetic.steps(SIDE, rng):
        shown = arithmetic.shown_working(step, SIDE)
        if len(shown) > 1 and rng.random() < 0.5:
            text = f"{_expression(step)}: {', '.join(map(str, shown))}"
            yield Drill(text=text, keys=tuple(one.pair for one in (step, *shown)))
        else:
            template = rng.choice(MATH_TEMPLATES[step.operation])
            yield Drill(text=template.format(a=step.a, b=step.b, c=step.result), keys=(step.pair,))


def spelling_drills(rng: random.Random) -> Iterator[Drill]:
    for stage, word in spelling.words(SIDE, rng):
        text = rng.choice(SPELLING_TEMPLATES[stage]).format(
            word=word, spaced=" ".join(word), answer=spelling.solve(stage, word)
        )
        yield Drill(text=text, keys=(word,))


def choice_drills(rng: random.Random) -> Iterator[Drill]:
    streams = {"fact": _fact_drills(rng), "number": _number_drills(rng)}
    return interleaved(streams, {"fact": 0.75, "number": 0.25})


DRILLS: Final[Mapping[str, Callable[[random.Random], Iterator[Drill]]]] = {
    "math": math_drills,
    "spelling": spelling_drills,
    "choice": choice_drills,
}


def take_drills(skill: str, count: int, seed: int) -> list[Drill]:
    """`count` different drills of a skill; raise `invalid_value` where there are fewer."""
    stream = DRILLS[skill](random.Random(f"{seed} drills {skill}"))
    taken: dict[str, Drill] = {}
    repeats = 0
    while len(taken) < count:
        drill = next(stream, None)
        if drill is None or repeats > MAX_REPEATS:
            raise ContractError(
                Code.INVALID_VALUE,
                f"there are only {len(taken):,} different {skill} drills, {count:,} are wanted; lower --{skill}-rows",
                param=f"--{skill}-rows",
            )
        repeats = repeats + 1 if drill.text in taken else 0
        taken.setdefault(drill.text, drill)
    return list(taken.values())


def _expression(step: Step) -> str:
    return str(step).partition(" = ")[0]


def _fact_drills(rng: random.Random) -> Iterator[Drill]:
    while True:
        relation = rng.choice(choice.RELATIONS)
        thing, answer = rng.choice(list(relation.facts[SIDE].items()))
        others = [other for other in relation.facts[SIDE].values() if other != answer]
        options = rng.sample([answer, *rng.sample(others, NUM_OPTIONS - 1)], NUM_OPTIONS)
        question = choice.asked(thing, rng.choice(relation.templates[SIDE]))
        key = f"{relation.name} {thing}"
        if rng.random() < 0.5:
            text = f"{question} It is one of {', '.join(options)}: {answer}."
        else:
            label = choice.LABELS[options.index(answer)]
            lines = [f"{letter}) {option}" for letter, option in zip(choice.LABELS, options, strict=False)]
            text = "\n".join([question, *lines, f"Answer: {label}) {answer}"])
        yield Drill(text=text, keys=(key,))


def _number_drills(rng: random.Random) -> Iterator[Drill]:
    pool = choice.numbers_of(SIDE)
    while True:
        numbers = rng.sample(pool, NUM_OPTIONS)
        rule = rng.choice(list(NUMBER_TEMPLATES))
        answer = max(numbers) if rule == "largest" else min(numbers)
        text = NUMBER_TEMPLATES[rule].format(numbers=", ".join(map(str, numbers)), answer=answer)
        yield Drill(text=text, keys=tuple(f"choice {number}" for number in numbers))
