"""Refusal: say "I do not know" when the answer is not there, and only then.

Half of the questions are answerable. A note says something about a person; its twin asks about something that the
note does not mention. The rest ask for live or private facts. A right refusal names what is not known, so one fixed
refusal passes next to nothing.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from picochat_trainer.tuning.skills.identity import NAMES
from picochat_trainer.tuning.skills.question import Question, Side, decks

NOT_IN_NOTE: Final = "I do not know. The note does not mention the {thing}."
NO_INFORMATION: Final = "I do not know {subject}."
KINDS: Final = (  # in this order: two rows are one of each
    "missing",
    "answer",
    "live",
    "answer",
    "missing",
    "answer",
    "live",
    "answer",
    "missing",
    "answer",
)


@dataclass(frozen=True, kw_only=True)
class Note:
    """A kind of note: what it states, how it is asked, and what may stand in it."""

    name: str
    templates: dict[Side, tuple[tuple[str, str], ...]]
    """Pairs of note and question over {name}, {thing}, {value}."""
    things: dict[Side, tuple[str, ...]]
    values: dict[Side, tuple[str, ...]]


NOTES: Final = (
    Note(
        name="color",
        templates={
            Side.SFT: (
                ("{name} has a {value} {thing}.", "What color is the {thing}?"),
                ("The {thing} of {name} is {value}.", "Which color does the {thing} have?"),
                ("{name} bought a {thing}. It is {value}.", "Name the color of the {thing}."),
            ),
            Side.EVAL: (
                ("{name} painted the {thing} {value}.", "Of what color is the {thing}?"),
                ("There is a {value} {thing} at {name}'s house.", "The {thing} has what color?"),
            ),
        },
        things={
            Side.SFT: (
                "bike",
                "hat",
                "car",
                "door",
                "cup",
                "coat",
                "boat",
                "chair",
                "lamp",
                "bag",
                "box",
                "tent",
            ),
            Side.EVAL: ("fence", "sofa", "scarf", "desk", "kite", "vase", "wall", "shoe"),
        },
        values={
            Side.SFT: ("red", "blue", "green", "black", "white", "brown", "gray"),
            Side.EVAL: ("yellow", "purple", "orange", "pink", "silver"),
        },
    ),
    Note(
        name="place",
        templates={
            Side.SFT: (
                ("{name} put the {thing} in the {value}.", "Where is the {thing}?"),
                ("The {thing} of {name} lies in the {value}.", "Where does the {thing} lie?"),
                ("{name} keeps a {thing} in the {value}.", "In which place is the {thing}?"),
            ),
            Side.EVAL: (
                ("{name} left the {thing} in the {value}.", "Where can the {thing} be found?"),
                ("You find {name}'s {thing} in the {value}.", "What is the place of the {thing}?"),
            ),
        },
        things={
            Side.SFT: (
                "key",
                "book",
                "map",
                "ring",
                "phone",
                "ball",
                "letter",
                "coin",
                "pen",
                "ticket",
                "knife",
            ),
            Side.EVAL: ("stamp", "wallet", "photo", "needle", "candle", "spoon", "badge"),
        },
        values={
            Side.SFT: ("kitchen", "garden", "cellar", "office", "garage", "attic", "hall"),
            Side.EVAL: ("barn", "library", "shed", "pantry", "tower"),
        },
    ),
    Note(
        name="day",
        templates={
            Side.SFT: (
                ("{name} plans the {thing} for {value}.", "When is the {thing}?"),
                ("The {thing} with {name} is on {value}.", "On which day is the {thing}?"),
                ("{name} moved the {thing} to {value}.", "Which day has the {thing}?"),
            ),
            Side.EVAL: (
                ("{name} expects the {thing} on {value}.", "What day is set for the {thing}?"),
                ("For {name} the {thing} falls on {value}.", "The {thing} falls on what day?"),
            ),
        },
        things={
            Side.SFT: ("party", "exam", "trip", "meeting", "concert", "race", "dinner", "lesson", "match"),
            Side.EVAL: ("wedding", "picnic", "interview", "parade", "market", "lecture"),
        },
        values={
            Side.SFT: ("Monday", "Tuesday", "Thursday", "Saturday"),
            Side.EVAL: ("Wednesday", "Friday", "Sunday"),
        },
    ),
)

LIVE_TEMPLATES: Final = {
    Side.SFT: ("What is {subject}?", "Tell me {subject}.", "I need {subject}.", "Can you give me {subject}?"),
    Side.EVAL: ("Please say {subject}.", "Which is {subject}?", "Find {subject} for me."),
}
LIVE_SUBJECTS: Final = {
    Side.SFT: (
        "the weather in {city} tomorrow",
        "the price of bread in {city} today",
        "the score of tonight's game in {city}",
        "the password of {name}",
        "the phone number of {name}",
        "the home address of {name}",
        "the next train from {city}",
        "the age of my friend {name}",
    ),
    Side.EVAL: (
        "the traffic in {city} right now",
        "the winner of next year's race in {city}",
        "the bank balance of {name}",
        "the birthday of my cousin {name}",
        "the water level in {city} this minute",
        "the secret code of {name}",
    ),
}
CITIES: Final = {
    Side.SFT: ("Oslo", "Madrid", "Cairo", "Lima", "Paris", "Tokyo", "Delhi", "Rome", "Berlin", "Dublin"),
    Side.EVAL: ("Vienna", "Athens", "Quito", "Seoul", "Hanoi", "Lisbon", "Prague"),
}


def questions(side: Side, rng: random.Random) -> Iterator[Question]:
    """Half answerable, three in ten about what the note leaves out, two in ten live or private."""
    notes = {kind: decks(NOTES, rng) for kind in ("missing", "answer")}
    for kind in cycle(KINDS):
        yield _live(side, rng) if kind == "live" else _note(side, rng, next(notes[kind]), kind)


def _note(side: Side, rng: random.Random, note: Note, kind: str) -> Question:
    index = rng.randrange(len(note.templates[side]))
    statement, question = note.templates[side][index]
    thing, other = rng.sample(note.things[side], 2)
    value = rng.choice(note.values[side])
    name = rng.choice(NAMES[side])
    missing = kind == "missing"
    asked = question.format(thing=other if missing else thing)
    return Question(
        user=f"Note: {statement.format(name=name, thing=thing, value=value)}\n{asked}",
        answer=NOT_IN_NOTE.format(thing=other) if missing else value,
        category="refusal_not_in_note" if missing else "refusal_in_note",
        # Twins share a group: one alone on the other side of a split would give the wording away.
        group=f"refusal-{note.name}-{side}{index}",
        stage="refusal",
        answerable=not missing,
        final_answer=None if missing else value,
        must_include=(other,) if missing else (),
        must_not_include=(value,) if missing else (),
        level="adversarial" if missing else "transfer",
    )


def _live(side: Side, rng: random.Random) -> Question:
    index = rng.randrange(len(LIVE_TEMPLATES[side]))
    about = {"city": rng.choice(CITIES[side]), "name": rng.choice(NAMES[side])}
    template = rng.choice(LIVE_SUBJECTS[side])
    subject = template.format(**about)
    return Question(
        user=LIVE_TEMPLATES[side][index].format(subject=subject),
        answer=NO_INFORMATION.format(subject=subject),
        category="refusal_live",
        group=f"refusal-live-{side}{index}",
        stage="refusal",
        answerable=False,
        must_include=tuple(named for key, named in about.items() if f"{{{key}}}" in template),
        level="adversarial",
    )
