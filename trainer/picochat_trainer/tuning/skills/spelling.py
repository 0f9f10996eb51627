"""Spelling: count, first letter, last letter, spaced, reversed.

Words are invented, so there are enough of them and none is known from the corpus. A word, together with its reverse,
belongs to SFT or to the eval for good; it has one stage and one template. Lengths and letters are dealt evenly, so that
no fixed answer pays.
"""

import random
from collections.abc import Iterator
from typing import Final

from picochat_trainer.tuning.skills.question import Question, Side, dealt, decks, interleaved, side_of

VOWELS: Final = "aeiou"
CONSONANTS: Final = "bcdfghjklmnprstvwz"
LETTERS: Final = VOWELS + CONSONANTS
LENGTHS: Final = range(3, 9)
WEIGHTS: Final = {"count": 0.24, "first": 0.22, "last": 0.22, "spaced": 0.16, "reverse": 0.16}
TEMPLATES: Final = {
    "count": {
        Side.SFT: (
            *(
                "How many letters are in {word}?",
                "Count the letters in {word}.",
                "{word} has how many letters?",
            ),
            "Give the number of letters in {word}.",
        ),
        Side.EVAL: ("What is the letter count of {word}?", "How long is the word {word}?"),
    },
    "first": {
        Side.SFT: (
            *(
                "What is the first letter of {word}?",
                "Give the first letter of {word}.",
                "{word} starts with which letter?",
            ),
            "Name the letter that {word} begins with.",
        ),
        Side.EVAL: ("Which letter comes first in {word}?", "With what letter does {word} start?"),
    },
    "last": {
        Side.SFT: (
            *(
                "What is the last letter of {word}?",
                "Give the last letter of {word}.",
                "{word} ends with which letter?",
            ),
            "Name the letter that {word} ends in.",
        ),
        Side.EVAL: ("Which letter comes last in {word}?", "With what letter does {word} stop?"),
    },
    "spaced": {
        Side.SFT: (
            "Spell {word} with spaces.",
            "Write {word} letter by letter.",
            "Put spaces between the letters of {word}.",
        ),
        Side.EVAL: ("Separate the letters of {word}.", "Spell out {word}."),
    },
    "reverse": {
        Side.SFT: ("Write {word} backwards.", "Reverse {word}.", "Turn {word} around."),
        Side.EVAL: ("Read {word} from the end.", "What is {word} in reverse?"),
    },
}


def questions(side: Side, rng: random.Random) -> Iterator[Question]:
    """A question about each word."""
    return (_question(stage, side, word) for stage, word in words(side, rng))


def words(side: Side, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Stages and new words in proportion, without end."""
    return interleaved({stage: _stage(stage, side, rng) for stage in WEIGHTS}, WEIGHTS)


def solve(stage: str, word: str) -> str:
    match stage:
        case "count":
            return str(len(word))
        case "first":
            return word[0]
        case "last":
            return word[-1]
        case "spaced":
            return " ".join(word)
        case "reverse":
            return word[::-1]
    raise ValueError(f"unknown spelling stage {stage!r}")


def _stage(stage: str, side: Side, rng: random.Random) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    letters = decks(LETTERS, rng)
    for length in decks(LENGTHS, rng):
        # The wanted letter and length stay while words of the other side or stage are thrown back.
        letter = next(letters)
        for _ in range(200):
            word = _invent(rng, length, letter, last=stage == "last")
            if word not in seen and _belongs(word, stage, side):
                seen.add(word)
                yield stage, word
                break


def word_side(word: str) -> Side:
    """The side of a word and of its reverse: turned around, an eval word would be an answer of SFT."""
    return side_of(min(word, word[::-1]))


def _belongs(word: str, stage: str, side: Side) -> bool:
    _, own_stage = dealt(f"stage {word}", tuple(WEIGHTS))
    return word_side(word) is side and own_stage == stage and word != word[::-1]


def _invent(rng: random.Random, length: int, letter: str, *, last: bool) -> str:
    """A pronounceable word that starts (or ends) with `letter`."""
    word = letter
    while len(word) < length:
        word += rng.choice(CONSONANTS if word[-1] in VOWELS else VOWELS)
    return word[::-1] if last else word


def _question(stage: str, side: Side, word: str) -> Question:
    index, template = dealt(f"template {word}", TEMPLATES[stage][side])
    return Question(
        user=template.format(word=word),
        answer=solve(stage, word),
        category=f"bench_spelling_{stage}",
        group=f"spelling-{stage}-{side}{index}",
        stage=stage,
        working=" ".join(word),
        final_answer=solve(stage, word),
    )
