"""Generated texts for `contamination.py`: clean prose, eval items of many kinds, and ways to plant an item.

Everything is made from a seed. The clean prose shares its words, names, numbers and stock phrases with the items, and its
SFT rows share the items' templates, so that a false alarm is possible; whole items are never in it.
"""

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pydoc_data.topics import topics

from picochat_trainer.data.contamination import Item
from picochat_trainer.data.normalize import is_unspaced, words

WORDS = {
    "nouns": (
        "river bridge market letter garden engine window teacher village harbour machine library forest "
        "winter kitchen train lantern doctor island mirror castle summer painter valley station captain "
        "orchestra journal mountain festival blanket printer camera pillow tunnel ladder museum bakery turtle "
        "falcon merchant soldier hospital desert glacier comet violin theatre basket carpet wallet bicycle "
        "hammer needle saddle chapel cottage factory ocean planet signal battery compass anchor barrel candle "
        "ribbon pepper walnut copper marble velvet timber harvest voyage rescue contract treaty"
    ),
    "verbs": (
        "carried repaired painted measured followed visited described opened crossed borrowed counted "
        "discovered protected collected sketched delivered replaced observed guarded cleaned exchanged "
        "translated recorded planted hid surrounded defended announced divided improved examined imported "
        "restored polished photographed abandoned"
    ),
    "adjectives": (
        "old narrow silent bright heavy distant broken golden wooden frozen hidden modern famous gentle "
        "crowded empty hollow ancient rusty sudden pale steep warm curious enormous quiet fragile northern "
        "royal ordinary muddy"
    ),
    "names": (
        "Anna Boris Clara Daniel Elena Felix Greta Hassan Ines Jonas Karim Laura Miguel Nadia Oscar Priya "
        "Quentin Rosa Samuel Tara Ulrich Vera Walter Ximena Yusuf Zoe Amara Bruno Chen Dorothy"
    ),
    "places": (
        "Lisbon Vienna Cairo Oslo Madrid Lima Kyoto Dublin Prague Nairobi Quito Athens Helsinki Bogota Tunis "
        "Geneva Porto Krakow Seville Bergen"
    ),
    "syllables": "ba rin do vel ka mur ti san lo feng ru bek ni zar po lud hei mas go quin",
}
NOUNS, VERBS, ADJECTIVES, NAMES, PLACES, SYLLABLES = (text.split() for text in WORDS.values())
PHRASES = [
    "at the end of the day",
    "on the other hand",
    "in the middle of the night",
    "as a matter of fact",
    "one of the most important",
    "to the best of our knowledge",
    "it is well known that",
    "as soon as possible",
]
# Escaped, as every source here is ASCII: a few dozen everyday words or characters of each language.
FOREIGN = {
    "German": (
        "der Fluss tr\u00e4gt die Br\u00fccke \u00fcber das Tal und jeder H\u00e4ndler kennt den gr"
        "\u00f6\u00dften Markt am n\u00f6rdlichen Ufer wo fr\u00fcher Schiffe anlegten bevor eine Str"
        "a\u00dfe gebaut wurde weil niemand mehr warten wollte"
    ),
    "French": (
        "le mus\u00e9e pr\u00e8s de la gare expose une \u0153uvre c\u00e9l\u00e8bre que personne ne v"
        "oulait vendre apr\u00e8s la guerre car son \u00e9l\u00e8ve pr\u00e9f\u00e9r\u00e9 habitait d"
        "\u00e9j\u00e0 tr\u00e8s loin du ch\u00e2teau o\u00f9 naquit cette \u00e9trange rivi\u00e8re"
    ),
    "Russian": (
        "\u0441\u0442\u0430\u0440\u044b\u0439 \u043c\u043e\u0441\u0442 \u0447\u0435\u0440\u0435\u0437"
        " \u0440\u0435\u043a\u0443 \u043f\u043e\u0441\u0442\u0440\u043e\u0438\u043b\u0438 \u043c"
        "\u0430\u0441\u0442\u0435\u0440\u0430 \u0438\u0437 \u0434\u0430\u043b\u0451\u043a\u043e\u0439"
        " \u0434\u0435\u0440\u0435\u0432\u043d\u0438 \u043a\u043e\u0442\u043e\u0440\u044b\u0435 "
        "\u043d\u0438\u043a\u043e\u0433\u0434\u0430 \u043d\u0435 \u0432\u0438\u0434\u0435\u043b\u0438"
        " \u043c\u043e\u0440\u044f \u043d\u043e \u0437\u043d\u0430\u043b\u0438 \u043a\u0430\u0436"
        "\u0434\u044b\u0439 \u043b\u0435\u0441 \u0438 \u043f\u043e\u043c\u043d\u0438\u043b\u0438 "
        "\u0438\u043c\u044f \u043f\u0435\u0440\u0432\u043e\u0433\u043e \u0443\u0447\u0438\u0442\u0435"
        "\u043b\u044f \u043d\u0430\u0448\u0435\u0433\u043e \u0433\u043e\u0440\u043e\u0434\u0430 "
        "\u0437\u0438\u043c\u043e\u0439"
    ),
    "Arabic": (
        "\u0643\u062a\u0628 \u0627\u0644\u0645\u0639\u0644\u0645 \u0631\u0633\u0627\u0644\u0629 "
        "\u0637\u0648\u064a\u0644\u0629 \u0625\u0644\u0649 \u0635\u062f\u064a\u0642\u0647 \u0627"
        "\u0644\u0642\u062f\u064a\u0645 \u0641\u064a \u0627\u0644\u0645\u062f\u064a\u0646\u0629 "
        "\u0627\u0644\u0628\u0639\u064a\u062f\u0629 \u0639\u0646 \u0627\u0644\u0633\u0648\u0642 "
        "\u0627\u0644\u062c\u062f\u064a\u062f \u0642\u0631\u0628 \u0627\u0644\u0646\u0647\u0631 "
        "\u0648\u0642\u0627\u0644 \u0625\u0646 \u0627\u0644\u0634\u062a\u0627\u0621 \u0643\u0627"
        "\u0646 \u0628\u0627\u0631\u062f\u0627 \u062c\u062f\u0627 \u0647\u0630\u0627 \u0627\u0644"
        "\u0639\u0627\u0645 \u0648\u0625\u0646 \u0627\u0644\u0646\u0627\u0633 \u064a\u0646\u062a"
        "\u0638\u0631\u0648\u0646 \u0627\u0644\u0631\u0628\u064a\u0639"
    ),
    "Hindi": (
        "\u092a\u0941\u0930\u093e\u0928\u0947 \u092a\u0941\u0932 \u0915\u0947 \u092a\u093e\u0938 "
        "\u090f\u0915 \u091b\u094b\u091f\u093e \u0917\u093e\u0901\u0935 \u0925\u093e \u091c\u0939"
        "\u093e\u0901 \u0939\u0930 \u0938\u093e\u0932 \u092e\u0947\u0932\u093e \u0932\u0917\u0924"
        "\u093e \u0914\u0930 \u0932\u094b\u0917 \u0926\u0942\u0930 \u0938\u0947 \u0906\u0915\u0930 "
        "\u0905\u092a\u0928\u0940 \u0915\u0939\u093e\u0928\u093f\u092f\u093e\u0901 \u0938\u0941\u0928"
        "\u093e\u0924\u0947 \u0925\u0947 \u0932\u0947\u0915\u093f\u0928 \u0928\u0926\u0940 \u0915"
        "\u093e \u092a\u093e\u0928\u0940 \u0915\u092d\u0940 \u0915\u092e \u0928\u0939\u0940\u0902 "
        "\u0939\u0941\u0906"
    ),
    "Chinese": (
        "\u8001\u57ce\u7684\u56fe\u4e66\u9986\u5728\u6cb3\u8fb9\u6bcf\u5e74\u6625\u5929\u90fd\u6709"
        "\u5f88\u591a\u5b66\u751f\u6765\u8fd9\u91cc\u8bfb\u4e66\u5e97\u4e3b\u8bb0\u5f97\u7b2c\u4e00"
        "\u4f4d\u5ba2\u4eba\u7559\u4e0b\u7684\u4fe1\u53ef\u662f\u6ca1\u6709\u4eba\u77e5\u9053\u4ed6"
        "\u540e\u6765\u53bb\u4e86\u54ea\u5ea7\u5c71"
    ),
    "Japanese": (
        "\u53e4\u3044\u99c5\u306e\u524d\u306b\u5c0f\u3055\u306a\u5e97\u304c\u3042\u3063\u3066\u3001"
        "\u6bce\u671d\u65b0\u3057\u3044\u30d1\u30f3\u3092\u713c\u304f\u5302\u3044\u304c\u753a\u306b"
        "\u5e83\u304c\u308b\u3002\u5148\u751f\u306f\u5ddd\u306e\u5411\u3053\u3046\u306e\u5b66\u6821"
        "\u307e\u3067\u6b69\u3044\u3066\u884c\u304d\u3001\u51ac\u3067\u3082\u7a93\u3092\u958b\u3051"
        "\u305f"
    ),
}
CHOICE_PREFIX = "Choose the correct answer to the question below. Reply with the letter of the right option only. Question:"
KINDS = ("short", "question", "problem", "passage", "arithmetic", "choice", "foreign")


@dataclass(frozen=True)
class Benchmark:
    items: list[Item]
    kind_of: dict[str, str]


def make_items(rng: random.Random, count: int, *, kinds: tuple[str, ...] = KINDS) -> Benchmark:
    """Items with different prompts; `foreign` ones are in seven languages."""
    items: list[Item] = []
    kind_of: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    while len(items) < count:
        kind = kinds[len(items) % len(kinds)]
        prompt, answer = _MAKERS[kind](rng)
        form = tuple(words(prompt))
        if form not in seen:
            seen.add(form)
            items.append(Item(f"{kind}:{len(items)}", prompt, answer))
            kind_of[items[-1].key] = kind
    return Benchmark(items, kind_of)


def clean_documents(rng: random.Random, num_characters: int) -> Iterator[str]:
    """Prose of about 4,000 characters a document: stories, technical English, and one in ten in another language."""
    technical = _Chain("\n".join(topics.values()))
    while num_characters > 0:
        choice = rng.random()
        if choice < 0.1:
            language = rng.choice(list(FOREIGN))
            text = "\n".join(_foreign(rng, language, rng.randint(20, 60)) for _ in range(12))
        elif choice < 0.3:
            text = technical.text(rng, 650)
        else:
            text = "\n\n".join(" ".join(_sentence(rng) for _ in range(rng.randint(4, 12))) for _ in range(7))
        num_characters -= len(text)
        yield text


def clean_rows(rng: random.Random, count: int) -> Iterator[tuple[str, str]]:
    """Prompts and answers of an SFT file with the templates of the items, and other questions in them."""
    for _ in range(count):
        kind = rng.choice(("choice", "arithmetic", "plain"))
        if kind == "choice":
            yield f"{CHOICE_PREFIX} {_sentence(rng)} {_options(rng)}", rng.choice("ABCD")
        elif kind == "arithmetic":
            left, right = rng.randint(1000, 9999), rng.randint(1000, 9999)
            yield f"What is {left} + {right}?", str(left + right)
        else:
            yield f"Continue the story. {_sentence(rng)}", _sentence(rng)


def _sentence(rng: random.Random) -> str:
    """Long fixed runs of words would make unrelated texts share 13 in a row, which natural ones hardly ever do."""
    name, thing, other = _person(rng), _thing(rng), _thing(rng)
    verb, place, number, year = (
        rng.choice(VERBS),
        rng.choice(PLACES),
        rng.randint(2, 90),
        rng.randint(1400, 2020),
    )
    if rng.random() < 0.05:
        return f"{rng.choice(PHRASES).capitalize()}, {name} {verb} {number} {thing}s of {place}."
    return rng.choice(
        (
            f"{name} {verb} the {thing} near {rng.choice(NAMES)}'s {other} in {place}.",
            f"In {year}, {name} {verb} {number} {thing}s, and {place}'s {other} was {rng.choice(ADJECTIVES)}.",
            f"\u201cThe {thing} is {rng.choice(ADJECTIVES)},\u201d said {name}, who {verb} {number} {other}s.",
            f"{thing.capitalize()}s \u2013 like {other}s and {_thing(rng)}s \u2013 {verb} {name} in {place}.",
            f"How did {name} know that {_person(rng)} {verb} the {thing} of {place} in {year}?",
            f"When {name}'s {thing} was {verb}, {number} {other}s stayed in {place} for {year % 40} days.",
        )
    )


def _person(rng: random.Random) -> str:
    surname = "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()
    return f"{rng.choice(NAMES)} {surname}"


def _thing(rng: random.Random) -> str:
    adjectives = rng.sample(ADJECTIVES, rng.choice((0, 1, 1, 2)))
    return " ".join((*adjectives, rng.choice(NOUNS)))


def _foreign(rng: random.Random, language: str, length: int) -> str:
    vocabulary = FOREIGN[language]
    if language in ("Chinese", "Japanese"):
        return "".join(rng.choice(vocabulary) for _ in range(length))
    known = vocabulary.split()
    return " ".join(rng.choice(known) for _ in range(length)).capitalize() + "."


class _Chain:
    """Text in which every word follows one that it follows in the model text: natural English in short runs."""

    def __init__(self, text: str) -> None:
        found = text.split()
        self._after: dict[str, list[str]] = {}
        for word, following in pairwise(found):
            self._after.setdefault(word, []).append(following)
        self._words = found

    def text(self, rng: random.Random, num_words: int) -> str:
        word = rng.choice(self._words)
        out = [word]
        for _ in range(num_words):
            word = rng.choice(self._after.get(word) or self._words)
            out.append(word)
        return " ".join(out)


def _short(rng: random.Random) -> tuple[str, str]:
    return (
        f"Who {rng.choice(VERBS)} {rng.choice(NAMES)}'s {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}?",
        rng.choice(NAMES),
    )


def _question(rng: random.Random) -> tuple[str, str]:
    return (
        f"Which {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} did {rng.choice(NAMES)} give to the {rng.choice(NOUNS)} keeper "
        f"of {rng.choice(PLACES)} before the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} was {rng.choice(VERBS)}?",
        f"the {rng.choice(ADJECTIVES)} one",
    )


def _problem(rng: random.Random) -> tuple[str, str]:
    name, noun, other = rng.choice(NAMES), rng.choice(NOUNS), rng.choice(NOUNS)
    first, second, third = rng.randint(3, 99), rng.randint(3, 99), rng.randint(2, 9)
    return (
        f"{name} sells {first} {noun}s in {rng.choice(PLACES)} and {second} {other}s on every {rng.choice(ADJECTIVES)} day. "
        f"A {noun} costs ${third} more than a {other}, which {rng.choice(NAMES)} once {rng.choice(VERBS)} for ${second + 1}. "
        f"If {rng.choice(NAMES)} buys {third} of each, how much does {name} earn with {rng.choice(NOUNS)} and {noun} together?",
        str(first * second),
    )


def _passage(rng: random.Random) -> tuple[str, str]:
    text = " ".join(_sentence(rng) for _ in range(rng.randint(8, 14)))
    return f"{text} According to the text, what {rng.choice(VERBS)} the {rng.choice(NOUNS)}?", rng.choice(
        NOUNS
    )


def _arithmetic(rng: random.Random) -> tuple[str, str]:
    left, right, sign = rng.randint(10, 999), rng.randint(10, 999), rng.choice("+-*")
    answer = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return f"What is {left} {sign} {right}?", str(answer)


def _choice(rng: random.Random) -> tuple[str, str]:
    subject = (
        f"what {rng.choice(VERBS)} the {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} of {rng.choice(NAMES)}?"
    )
    return f"{CHOICE_PREFIX} In {rng.choice(PLACES)}, {subject} {_options(rng)}", rng.choice("ABCD")


def _options(rng: random.Random) -> str:
    return " ".join(
        f"{letter}) the {rng.choice(ADJECTIVES)} {noun}"
        for letter, noun in zip("ABCD", rng.sample(NOUNS, 4), strict=True)
    )


def _foreign_item(rng: random.Random) -> tuple[str, str]:
    language = rng.choice(list(FOREIGN))
    unspaced = language in ("Chinese", "Japanese")
    length = rng.randint(14, 50) if unspaced else rng.randint(9, 25)
    return _foreign(rng, language, length).rstrip(".") + ("\uff1f" if unspaced else "?"), rng.choice(NAMES)


_MAKERS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "short": _short,
    "question": _question,
    "problem": _problem,
    "passage": _passage,
    "arithmetic": _arithmetic,
    "choice": _choice,
    "foreign": _foreign_item,
}


def verbatim(rng: random.Random, text: str) -> str:
    return text


def recased(rng: random.Random, text: str) -> str:
    """Other capitals, other signs between the words, other white space; signs between numbers stay."""
    text = rng.choice((str.upper, str.lower, str.title, str.swapcase))(text)
    found = re.sub(r"[.,?](?=\s|$)", "", text).split(" ")
    out = []
    for word, following in zip(found, [*found[1:], ""], strict=True):
        plain = word.isalpha() and following.isalpha()
        out.append(word + (rng.choice((" ", "  ", "\n", " - ", "; ", "... ", ", ")) if plain else " "))
    return "".join(out).strip() + rng.choice((".", "!", " ...", ""))


def embedded(rng: random.Random, text: str) -> str:
    """Inside a sentence, without a line of its own."""
    return f"{_sentence(rng)[:-1]}, because of this ({text}) {_sentence(rng)} {_sentence(rng)}"


def edited(rng: random.Random, text: str) -> str:
    """One word in eight is another; of scripts without spaces, one character in eight."""
    unspaced = bool(found := words(text)) and sum(map(is_unspaced, found)) > len(found) / 2
    parts = list(text) if unspaced else text.split(" ")
    places = [place for place, part in enumerate(parts) if words(part)]
    for place in rng.sample(places, max(1, round(len(places) / 8))):
        parts[place] = (
            rng.choice("\u685c\u96ea\u661f\u98a8\u82b1\u9ce5\u6708\u77f3")
            if unspaced
            else rng.choice(NOUNS) + rng.choice(("", "s", ","))
        )
    return ("" if unspaced else " ").join(parts)


def other_signs(rng: random.Random, text: str) -> str:
    """The same words with the signs and spaces of other scripts, or in full-width characters."""
    if rng.random() < 0.3 and text.isascii():
        return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else "\u3000" for sign in text)
    comma, stop, question = rng.choice(
        (("\u3001", "\u3002", "\uff1f"), ("\u060c", "\u06d4", "\u061f"), ("\uff0c", "\u2026", "\u203d"))
    )
    first, last = rng.choice(("\u00ab\u00bb", "\u201e\u201c", "\u300c\u300d", "\u2018\u2019"))
    signs = {
        ",": comma,
        "?": question,
        "'": "\u2019",
        "$": "\uff04",
        ")": "\uff09",
        "(": "\uff08",
        " ": "\u00a0",
    }
    out = "".join(signs.get(sign, sign) for sign in text.replace(". ", f"{stop} "))
    return f"{first}{out}{last}"


CLASSES: dict[str, Callable[[random.Random, str], str]] = {
    "verbatim": verbatim,
    "case and punctuation": recased,
    "embedded": embedded,
    "other scripts' punctuation": other_signs,
    "edited": edited,
}
