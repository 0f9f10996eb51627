"""SFT rows from a corpus: what its documents say, and that it is right not to know what they do not say.

`domain_` rows are grounded in a sentence of the document, `refusal_` rows ask for a name that the document does not
have. A document's rows are one group.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Final

from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.skills.question import Side, interleaved
from picochat_trainer.tuning.starters.facts import absent_names, gaps, mentions, names_in
from picochat_trainer.tuning.starters.rounds import TEXTS_PER_ITEM, in_turns, taken
from picochat_trainer.tuning.starters.texts import SourceText

SHARES: Final = {"domain_gap": 0.375, "domain_about": 0.375, "refusal_absent": 0.25}
GAP_PROMPTS: Final = (
    'Which {kind} is missing in "{title}": "{quote}"?',
    'Fill the gap with a {kind} from "{title}": {quote}',
    '"{quote}" - what {kind} does "{title}" have here?',
)
ABOUT_PROMPTS: Final = (
    'What does "{title}" say about {name}?',
    'Quote a sentence on {name} from "{title}".',
    'Where does "{title}" mention {name}?',
)
ABSENT_PROMPTS: Final = (
    'What does "{title}" tell us about {name}?',
    'Quote what "{title}" says on {name}.',
    'What can be learned of {name} from "{title}"?',
)
ABSENT_ANSWERS: Final = (
    "I do not know. The text does not mention it.",
    "I cannot answer that. It is not in the text.",
    "I do not know, since the text says nothing about it.",
)


def sft_rows(texts: Sequence[SourceText], *, max_items: int, seed: int) -> list[ChatRow]:
    """At most `max_items` rows over the SFT side's texts; fewer where they say too little."""
    rng = random.Random(f"{seed} starter {Side.SFT}")
    texts = rng.sample(texts, min(len(texts), TEXTS_PER_ITEM * max_items))
    names = names_in(texts)
    streams = {
        "domain_gap": in_turns([_gap_rows(text, rng) for text in texts]),
        "domain_about": in_turns([_about_rows(text, rng) for text in texts]),
        "refusal_absent": in_turns([_absent_rows(text, names, rng) for text in texts]),
    }
    rows = taken(interleaved(streams, SHARES), max_items, lambda row: row.user)
    return [row.model_copy(update={"line": line}) for line, row in enumerate(rows, start=1)]


def _gap_rows(text: SourceText, rng: random.Random) -> Iterator[ChatRow]:
    for gap in gaps(text):
        template = rng.choice(GAP_PROMPTS)
        yield ChatRow(
            user=template.format(kind=gap.kind, title=text.title, quote=gap.quote),
            assistant=gap.answer,
            category="domain_gap",
            group=_group(text),
            fit_must_include=(gap.answer,),
        )


def _about_rows(text: SourceText, rng: random.Random) -> Iterator[ChatRow]:
    for mention in mentions(text):
        yield ChatRow(
            user=rng.choice(ABOUT_PROMPTS).format(title=text.title, name=mention.name),
            assistant=mention.sentence,
            category="domain_about",
            group=_group(text),
        )


def _absent_rows(text: SourceText, names: Sequence[str], rng: random.Random) -> Iterator[ChatRow]:
    for name in absent_names(text, names, rng):
        yield ChatRow(
            user=rng.choice(ABSENT_PROMPTS).format(title=text.title, name=name),
            assistant=rng.choice(ABSENT_ANSWERS),
            category="refusal_absent",
            group=_group(text),
            answerable=False,
        )


def _group(text: SourceText) -> str:
    return f"{text.id}-{Side.SFT}"
