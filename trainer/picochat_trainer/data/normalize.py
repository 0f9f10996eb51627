"""The one normal form in which prompts and texts are compared: word tokens after Unicode NFKC and case folding.

In scripts that put no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) every character is a token.
An arithmetic sign between two digits is kept, so that `12 + 3` and `12 - 3` differ; all other punctuation goes, and so do
characters that nobody sees (zero-width joiners, soft hyphens). Vowel signs and accents belong to their word.

`contamination.tokens` computes the same tokens with numpy; a test holds the two together.
"""

import re
import unicodedata
from functools import cache
from typing import Final

SIGNS: Final = "-+*/^%<>=\u00d7\u00f7\u2212"
UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),
    (0x1AFF0, 0x1B16F),
    (0x20000, 0x3FFFF),
)
"""Code points, first to last, of the scripts that are compared by character."""
INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's default-ignorable characters, as the inside of a character class."""
_LAST_WORD: Final = 0x32400  # no letter, digit or mark is assigned after it
_SIGN = re.compile(rf"(?<=\d)\s*([{re.escape(SIGNS)}])\s*(?=\d)")
_ASCII_TOKEN = re.compile(rf"[a-z0-9]+|(?<=\d )[{re.escape(SIGNS)}](?= \d)")
_INVISIBLE = re.compile(f"[{INVISIBLE}]")


def words(text: str) -> list[str]:
    """Tokens of `text` in normal form."""
    token = _ASCII_TOKEN if text.isascii() else _token()
    return token.findall(_SIGN.sub(r" \1 ", folded(text)))


def normal_form(text: str) -> str:
    """`words(text)` joined by single spaces; equal prompts have equal normal forms."""
    return " ".join(words(text))


def folded(text: str) -> str:
    """`text` without case, compatibility variants and invisible characters."""
    if text.isascii():
        return text.lower()
    shown = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    return unicodedata.normalize("NFKC", shown.casefold())


@cache
def word_ranges() -> tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]:
    """Code points, first to last, of what words are made of (letters, digits and the marks on them): those of scripts
    with spaces between words, and those that are compared by character."""
    # Python's `\w` has no marks, which would cut words of Hindi or pointed Arabic in pieces.
    found: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    unspaced = {point for first, last in UNSPACED for point in range(first, min(last, _LAST_WORD) + 1)}
    for point in range(_LAST_WORD):
        character = chr(point)
        if character.isalnum() or unicodedata.category(character)[0] == "M":
            ranges = found[point in unspaced]
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1] = (ranges[-1][0], point)
            else:
                ranges.append((point, point))
    return tuple(found[0]), tuple(found[1])


@cache
def _token() -> re.Pattern[str]:
    (spaced, spaced_astral), (unspaced, unspaced_astral) = map(_character_classes, word_ranges())
    # `re` searches classes of astral characters one range after the other: ask for those only where there is one.
    astral = "(?=[\U00010000-\U0010ffff])"
    sign = rf"(?<=\d )[{re.escape(SIGNS)}](?= \d)"
    return re.compile(
        rf"(?:[{spaced}]+|{astral}[{spaced_astral}]+)+|[{unspaced}]|{sign}|{astral}[{unspaced_astral}]"
    )


def _character_classes(ranges: tuple[tuple[int, int], ...]) -> tuple[str, str]:
    """One class for the first 65,536 code points, for which `re` has a fast table, and one for the rest."""
    basic = [chr(first) + "-" + chr(last) for first, last in ranges if last <= 0xFFFF]
    astral = [chr(first) + "-" + chr(last) for first, last in ranges if last > 0xFFFF]
    return "".join(basic), "".join(astral)


def is_unspaced(token: str) -> bool:
    """Whether a token is a character of a script without spaces."""
    return not token.isascii() and any(first <= ord(token[0]) <= last for first, last in UNSPACED)
