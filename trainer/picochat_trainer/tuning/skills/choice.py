"""Choice: four options, answered with one letter. Science, language and world facts, and comparing numbers.

SFT and eval have different facts and different questions. A fact keeps one wording, and its wrong options come from
its own side. Right letters are dealt evenly in each category. The numbers are compared in the prompt, so they need no
knowledge.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from picochat_trainer.tuning.skills.question import Question, Side, dealt, decks, interleaved, side_of

LABELS: Final = ("A", "B", "C", "D")
WEIGHTS: Final = {"science": 0.25, "language": 0.25, "world": 0.25, "number": 0.25}


@dataclass(frozen=True, kw_only=True)
class Relation:
    """Things and what belongs to each, in two separate tables."""

    name: str
    category: str
    templates: dict[Side, tuple[str, ...]]
    facts: dict[Side, dict[str, str]]


def _table(text: str) -> dict[str, str]:
    """`thing answer, thing answer, ...`; an underscore stands for a space."""
    entries = (entry.split() for entry in text.split(","))
    return {thing.replace("_", " "): answer.replace("_", " ") for thing, answer in entries}


RELATIONS: Final = (
    Relation(
        name="young",
        category="science",
        templates={
            Side.SFT: ("What is {a} young {thing} called?", "Which word names a baby {thing}?"),
            Side.EVAL: ("The child of {a} {thing} is what?", "How is the offspring of {a} {thing} named?"),
        },
        facts={
            Side.SFT: _table(
                "cat kitten, dog puppy, cow calf, horse foal, sheep lamb, pig piglet, goat kid, chicken chick, "
                "duck duckling, bear cub, deer fawn, frog tadpole"
            ),
            Side.EVAL: _table(
                "goose gosling, kangaroo joey, swan cygnet, eel elver, hare leveret, owl owlet"
            ),
        },
    ),
    Relation(
        name="sound",
        category="science",
        templates={
            Side.SFT: ("Which sound does {a} {thing} make?", "What does {a} {thing} do with its voice?"),
            Side.EVAL: ("You hear {a} {thing}: it can", "The noise of {a} {thing} is named"),
        },
        facts={
            Side.SFT: _table(
                "dog bark, cat meow, cow moo, duck quack, lion roar, snake hiss, bee buzz, horse neigh, wolf howl, "
                "pig oink, frog croak, sheep bleat"
            ),
            Side.EVAL: _table(
                "rooster crow, owl hoot, pigeon coo, mouse squeak, donkey bray, elephant trumpet, turkey gobble"
            ),
        },
    ),
    Relation(
        name="instrument",
        category="science",
        templates={
            Side.SFT: ("What does {a} {thing} measure?", "Which value does {a} {thing} show?"),
            Side.EVAL: ("One reads what from {a} {thing}?", "People take {a} {thing} to find the"),
        },
        facts={
            Side.SFT: _table(
                "thermometer temperature, clock time, scale weight, ruler length, compass direction, "
                "barometer air_pressure, speedometer speed, voltmeter voltage"
            ),
            Side.EVAL: _table(
                "odometer distance, hygrometer humidity, anemometer wind, altimeter height, seismograph earthquakes"
            ),
        },
    ),
    Relation(
        name="color",
        category="science",
        templates={
            Side.SFT: ("What color does {thing} have?", "Which color is usual for {thing}?"),
            Side.EVAL: ("If you see {thing}, it is mostly", "A painter gives {thing} which color?"),
        },
        facts={
            Side.SFT: _table("grass green, snow white, blood red, coal black, the_clear_sky blue"),
            Side.EVAL: _table(
                "a_ripe_banana yellow, a_carrot orange, chocolate brown, a_flamingo pink, an_elephant gray, "
                "lavender purple"
            ),
        },
    ),
    Relation(
        name="material",
        category="science",
        templates={
            Side.SFT: ("What is {thing} made of?", "Which raw material gives us {thing}?"),
            Side.EVAL: ("To produce {thing} you need", "You get {thing} out of what?"),
        },
        facts={
            Side.SFT: _table(
                "glass sand, paper wood, cheese milk, bread flour, wine grapes, cider apples, silk cocoons, brick clay, "
                "leather hides, linen flax"
            ),
            Side.EVAL: _table(
                "chocolate cocoa, butter cream, tofu soybeans, popcorn corn, an_omelet eggs, yarn wool"
            ),
        },
    ),
    Relation(
        name="opposite",
        category="language",
        templates={
            Side.SFT: ("What is the opposite of {thing}?", "Which word is the reverse of {thing}?"),
            Side.EVAL: ("Choose the contrary of {thing}.", "Which word means the other extreme of {thing}?"),
        },
        facts={
            Side.SFT: _table(
                "hot cold, big small, fast slow, high low, light dark, open closed, old new, hard soft, wet dry, "
                "early late, full empty, near far, strong weak, clean dirty, happy sad, long short"
            ),
            Side.EVAL: _table(
                "rich poor, thick thin, loud quiet, wide narrow, deep shallow, brave afraid, rough smooth, safe dangerous"
            ),
        },
    ),
    Relation(
        name="past",
        category="language",
        templates={
            Side.SFT: ("What is the past tense of {thing}?", "Which form of {thing} is past?"),
            Side.EVAL: (
                "Choose the word for having done {thing} last week.",
                "If it happened before, {thing} becomes",
            ),
        },
        facts={
            Side.SFT: _table(
                "go went, see saw, take took, give gave, come came, run ran, write wrote, eat ate, find found, "
                "know knew, think thought, buy bought"
            ),
            Side.EVAL: _table(
                "fly flew, sing sang, drive drove, break broke, swim swam, teach taught, draw drew, sleep slept"
            ),
        },
    ),
    Relation(
        name="plural",
        category="language",
        templates={
            Side.SFT: ("What is the plural of {thing}?", "One {thing}, two"),
            Side.EVAL: ("The word for several of the kind {thing} is", "Many things, each {a} {thing}, are"),
        },
        facts={
            Side.SFT: _table(
                "man men, foot feet, mouse mice, child children, leaf leaves, knife knives, wolf wolves, city cities, "
                "baby babies, ox oxen, box boxes, lady ladies"
            ),
            Side.EVAL: _table(
                "woman women, tooth teeth, person people, half halves, shelf shelves, berry berries, story stories, "
                "goose geese"
            ),
        },
    ),
    Relation(
        name="capital",
        category="world",
        templates={
            Side.SFT: ("What is the capital of {thing}?", "Which city is the capital of {thing}?"),
            Side.EVAL: ("The seat of government of {thing} is where?", "Choose the main city of {thing}."),
        },
        facts={
            Side.SFT: _table(
                "France Paris, Spain Madrid, Italy Rome, Japan Tokyo, Egypt Cairo, Peru Lima, Norway Oslo, "
                "Greece Athens, Ireland Dublin, Poland Warsaw, Cuba Havana, Kenya Nairobi, Chile Santiago, "
                "Russia Moscow"
            ),
            Side.EVAL: _table(
                "Austria Vienna, Portugal Lisbon, Canada Ottawa, Finland Helsinki, Hungary Budapest, Nepal Kathmandu, "
                "Ghana Accra"
            ),
        },
    ),
    Relation(
        name="continent",
        category="world",
        templates={
            Side.SFT: ("Where does the {thing} live in the wild?", "Which land has the {thing}?"),
            Side.EVAL: ("To see a wild {thing}, go to", "A wild {thing} is found in"),
        },
        facts={
            Side.SFT: _table(
                "kangaroo Australia, tiger Asia, lion Africa, penguin Antarctica, jaguar South_America"
            ),
            Side.EVAL: _table(
                "lemur Madagascar, kiwi_bird New_Zealand, polar_bear the_Arctic, komodo_dragon Indonesia"
            ),
        },
    ),
    Relation(
        name="speech",
        category="world",
        templates={
            Side.SFT: ("Which language do most people of {thing} speak?", "What is spoken in {thing}?"),
            Side.EVAL: ("To talk with the people of {thing}, learn", "The tongue of {thing} is named"),
        },
        facts={
            Side.SFT: _table(
                "France French, Germany German, Mexico Spanish, Italy Italian, Russia Russian, Japan Japanese, "
                "China Chinese, Poland Polish, Greece Greek, Sweden Swedish"
            ),
            Side.EVAL: _table(
                "Brazil Portuguese, Hungary Hungarian, Turkey Turkish, Denmark Danish, Vietnam Vietnamese, "
                "Iceland Icelandic, Egypt Arabic"
            ),
        },
    ),
    Relation(
        name="job",
        category="world",
        templates={
            Side.SFT: ("Who {thing}?", "Which person {thing} for a living?"),
            Side.EVAL: ("Name the job of somebody who {thing}.", "Somebody who {thing}: the job is"),
        },
        facts={
            Side.SFT: _table(
                "flies_planes pilot, makes_bread baker, teaches_pupils teacher, pulls_teeth dentist, "
                "sews_clothes tailor, puts_out_fires firefighter, cuts_hair barber, grows_crops farmer, "
                "repairs_pipes plumber, serves_guests waiter"
            ),
            Side.EVAL: _table(
                "sells_meat butcher, writes_news journalist, treats_sick_animals vet, catches_fish fisherman, "
                "makes_shoes shoemaker, commands_a_ship captain, acts_in_films performer"
            ),
        },
    ),
)
NUMBER_TEMPLATES: Final = {
    Side.SFT: (
        ("largest", "Which number is the largest?"),
        ("largest", "Find the largest number."),
        ("smallest", "Which number is the smallest?"),
        ("smallest", "Find the smallest number."),
    ),
    Side.EVAL: (
        ("largest", "Choose the number that is larger than the others."),
        ("smallest", "Choose the number that is smaller than the others."),
    ),
}


def questions(side: Side, rng: random.Random) -> Iterator[Question]:
    """The four categories in equal shares, without end."""
    streams = {category: _facts(category, side, rng) for category in ("science", "language", "world")}
    streams["number"] = _numbers(side, rng)
    return interleaved(streams, WEIGHTS)


def numbers_of(side: Side) -> list[int]:
    """Numbers that are compared on this side."""
    return [number for number in range(10, 1_000) if side_of(f"choice {number}") is side]


def asked(thing: str, template: str) -> str:
    """`template` about a thing, with the right article."""
    return template.format(thing=thing, a="an" if thing[0] in "aeiou" else "a")


def _facts(category: str, side: Side, rng: random.Random) -> Iterator[Question]:
    letters = decks(range(len(LABELS)), rng)
    cards = [
        (relation, thing)
        for relation in RELATIONS
        if relation.category == category
        for thing in relation.facts[side]
    ]
    for relation, thing in decks(cards, rng):
        index, template = dealt(f"{relation.name} {thing}", relation.templates[side])
        answer = relation.facts[side][thing]
        others = [other for other in relation.facts[side].values() if other != answer]
        yield _question(
            asked(thing, template),
            rng.sample(others, len(LABELS) - 1),
            answer,
            next(letters),
            category=category,
            group=f"choice-{relation.name}-{side}{index}",
        )


def _numbers(side: Side, rng: random.Random) -> Iterator[Question]:
    letters = decks(range(len(LABELS)), rng)
    pool = numbers_of(side)
    templates = NUMBER_TEMPLATES[side]
    for index in decks(range(len(templates)), rng):
        rule, template = templates[index]
        numbers = rng.sample(pool, len(LABELS))
        answer = max(numbers) if rule == "largest" else min(numbers)
        numbers.remove(answer)
        yield _question(
            template,
            [str(number) for number in numbers],
            str(answer),
            next(letters),
            category="number",
            group=f"choice-number-{side}{index}",
        )


def _question(
    text: str, others: list[str], answer: str, letter: int, *, category: str, group: str
) -> Question:
    options = [*others[:letter], answer, *others[letter:]]
    lines = [f"{label}) {option}" for label, option in zip(LABELS, options, strict=True)]
    return Question(
        user="\n".join([text, *lines]),
        answer=LABELS[letter],
        category=f"bench_choice_{category}",
        group=group,
        stage=category,
        final_answer=LABELS[letter],
        choice_labels=LABELS,
    )
