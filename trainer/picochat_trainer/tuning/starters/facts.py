"""What can be asked about a text: gaps in its sentences, names that it has, sentences to go on with.

A quoted piece has at most seven words, so that a question is no copy of the corpus by the rules of contamination
(8 and 13 words in a row). Works on texts with spaces between words.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from picochat_trainer.data.normalize import normal_form
from picochat_trainer.scoring.matching import holds
from picochat_trainer.tuning.starters.texts import SourceText

GapKind = Literal["number", "name", "word"]

QUOTE_WORDS: Final = 7
GAP: Final = "____"
GAP_SIDE: Final = 3  # words shown before and after a gap
CONTINUED_QUOTE_WORDS: Final = 5
CONTINUED_WORDS: Final = 3
MIN_WORDS: Final = 8
MAX_WORDS: Final = 60
MAX_NAME_WORDS: Final = 3
MIN_LETTERS: Final = 0.6  # share of a sentence: tables and code are no sentences
_SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+")
_PARAGRAPH: Final = re.compile(r"\n\s*\n")
_EDGES: Final = re.compile(r"^[\W_]+|[\W_]+$")
_NUMBER: Final = re.compile(r"\d[\d,.:]*\d|\d\d+")


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A word of a sentence that has to be found again."""

    kind: GapKind
    text: SourceText
    quote: str
    """At most seven words, with a gap."""
    answer: str
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """The beginning of a sentence and the words that follow."""

    text: SourceText
    quote: str
    answer: str


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A name that a text has, with the sentence that says something about it."""

    text: SourceText
    name: str
    sentence: str


def sentences(text: str) -> list[str]:
    """Sentences of usable length, on one line each."""
    found: list[str] = []
    for paragraph in _PARAGRAPH.split(text):
        for sentence in _SENTENCE_END.split(" ".join(paragraph.split())):
            letters = sum(character.isalpha() or character.isspace() for character in sentence)
            is_prose = sentence[-1:] in ".!?\"')]" and letters >= MIN_LETTERS * len(sentence)
            if is_prose and MIN_WORDS <= len(sentence.split()) <= MAX_WORDS:
                found.append(sentence)
    return found


def gaps(text: SourceText) -> Iterator[Gap]:
    """One gap for each sentence that has one: a number before a name before a long word."""
    for sentence in sentences(text.text):
        gap = _gap(text, sentence)
        if gap is not None:
            yield gap


def continuations(text: SourceText) -> Iterator[Continuation]:
    for sentence in sentences(text.text):
        words = sentence.split()
        quote, rest = words[:CONTINUED_QUOTE_WORDS], words[CONTINUED_QUOTE_WORDS:]
        following = rest[:CONTINUED_WORDS]
        if len(following) == CONTINUED_WORDS and normal_form(" ".join(following)):
            yield Continuation(text=text, quote=" ".join(quote), answer=" ".join(following))


def mentions(text: SourceText) -> Iterator[Mention]:
    """Each name of a text once, with the first sentence that has it; long words where there is no name."""
    found = sentences(text.text)
    named = [(name, sentence) for sentence in found for name in names_of(sentence)]
    if not named:
        named = [(word, sentence) for sentence in found for word in _long_words(sentence)]
    seen: set[str] = set()
    for name, sentence in named:
        if normal_form(name) not in seen:
            seen.add(normal_form(name))
            yield Mention(text=text, name=name, sentence=sentence)


def absent_names(text: SourceText, names: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Those of `names` that the text does not have, in random order."""
    own = text.normal
    for name in rng.sample(names, len(names)):
        if f" {normal_form(name)} " not in own:
            yield name


def names_in(texts: Sequence[SourceText]) -> list[str]:
    """All names of `texts`, each once."""
    return list(dict.fromkeys(mention.name for text in texts for mention in mentions(text)))


def names_of(sentence: str) -> list[str]:
    """Runs of words that begin with a capital inside a sentence."""
    words = sentence.split()
    names: list[list[str]] = []
    is_open = False
    for position, word in enumerate(words):
        bare = _EDGES.sub("", word)
        starts_clause = position == 0 or words[position - 1][-1:] in ".!?:\"'"
        if starts_clause or not (bare.istitle() and bare.isalpha() and len(bare) >= 2):
            is_open = False
            continue
        if is_open:
            names[-1].append(bare)
        else:
            names.append([bare])
        is_open = word.endswith(bare)
    joined = (" ".join(name) for name in names if len(name) <= MAX_NAME_WORDS)
    return list(dict.fromkeys(name for name in joined if len(name) >= 3))


def _long_words(sentence: str) -> list[str]:
    bare = (_EDGES.sub("", word) for word in sentence.split())
    return [word for word in bare if len(word) >= 8 and word.isalpha()]


def _gap(text: SourceText, sentence: str) -> Gap | None:
    words = sentence.split()
    bare = [_EDGES.sub("", word) for word in words]
    names = set(names_of(sentence))
    inner = range(GAP_SIDE - 1, len(words) - 1)
    candidates: dict[GapKind, list[int]] = {
        "number": [i for i in inner if _NUMBER.fullmatch(bare[i])],
        "name": [i for i in inner if bare[i] in names],
        "word": sorted(
            (i for i in inner if len(bare[i]) >= 6 and bare[i].isalpha() and bare[i].islower()),
            key=lambda i: -len(bare[i]),
        ),
    }
    for kind, places in candidates.items():
        for i in places:
            before, after = words[max(0, i - GAP_SIDE) : i], words[i + 1 : i + 1 + GAP_SIDE]
            quote = " ".join([*before, words[i].replace(bare[i], GAP), *after])
            # The answer must not be shown, nor be one of several.
            if holds(quote, bare[i]) or holds(text.title, bare[i]) or bare.count(bare[i]) > 1:
                continue
            return Gap(kind=kind, text=text, quote=quote, answer=bare[i], sentence=sentence)
    return None
