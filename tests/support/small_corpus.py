"""A corpus of small documents with names, numbers and dates, the same in every run."""

import random
from collections.abc import Iterator

TOWNS = (
    "Oslo",
    "Lima",
    "Quito",
    "Cairo",
    "Delhi",
    "Turin",
    "Kyoto",
    "Leeds",
    "Basel",
    "Dakar",
    "Perth",
    "Split",
)
PEOPLE = (
    "Ines",
    "Tomas",
    "Greta",
    "Pavel",
    "Amira",
    "Hugo",
    "Nadia",
    "Oscar",
    "Petra",
    "Rafael",
    "Selma",
    "Viktor",
)
THINGS = ("lighthouse", "observatory", "harbour", "cathedral", "library", "theatre", "aqueduct", "orchard")


def document(number: int) -> tuple[str, str]:
    rng = random.Random(f"document {number}")
    town, other = rng.sample(TOWNS, 2)
    person, friend = rng.sample(PEOPLE, 2)
    thing = rng.choice(THINGS)
    sentences = [
        f"The {thing} number {number} of the region stands close to the old market of {town} in the north.",
        f"It was finished in {rng.randint(1500, 1999)} after many years of slow and careful work by the masons.",
        f"Most of the money came from the merchant {person} who had lived for a long time in {other} before.",
        f"Later the painter {friend} covered all of its inner walls with {rng.randint(20, 990)} pictures of birds.",
        "Every spring the children of the neighbourhood decorate the entrance with branches and ribbons.",
    ]
    return f"notes/note{number}.txt", f"Note {number}\n\n{' '.join(sentences)}\n"


def documents(count: int = 40) -> Iterator[tuple[str, str]]:
    return map(document, range(count))
