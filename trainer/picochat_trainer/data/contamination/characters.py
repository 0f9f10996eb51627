"""Tables over all Unicode code points that give `normalize.folded` of most texts character by character.

They are made of this Python's own Unicode data at the first use, in about 0.3 s. Folding a text is folding its characters
one by one, but for those that may join with the character before them (accents, vowel signs): see `tokens`.
"""

import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.normalize import SIGNS, folded, word_ranges

WORD: Final = 1
UNSPACED_WORD: Final = 2
"""A token of its own."""
DIGIT: Final = 4
SIGN: Final = 8
SPACE: Final = 16
CODE_BITS: Final = np.uint32(0x1FFFFF)
CLASS_SHIFT: Final = np.uint32(21)
SPECIAL: Final = np.uint32(1 << 31)
SEPARATOR: Final = ord(".")
"""Stands for what folds to several characters of which none is in a word."""

_SIZE: Final = sys.maxunicode + 1
_LAST: Final = 0x32400  # nothing after it folds to something else or joins, but for the invisible tags
_HANGUL_JOINING: Final = frozenset([*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)])
# Letters that stand for themselves, which spares a third of the work: Chinese characters, Hangul, surrogates and private use.
_PLAIN: Final = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xF8FF),
    (0x20000, 0x2F7FF),
    (0x30000, _LAST - 1),
)


@dataclass(frozen=True, kw_only=True)
class CharacterTables:
    """Indexed by code point."""

    packed: NDArray[np.uint32]
    """The folded character, where it is one; from CLASS_SHIFT on its class; and SPECIAL where the length is not 1 or it is a
    mark."""
    classes: NDArray[np.uint8]
    """Bits of WORD, UNSPACED_WORD, DIGIT, SIGN, SPACE; look a folded character up."""
    lengths: NDArray[np.uint8]
    """How many characters it folds to; 0 for invisible ones."""
    marks: NDArray[np.bool_]
    """Whether it may join with the character before it."""
    pool: NDArray[np.uint32]
    """Folded characters of those that fold to several."""
    pool_starts: NDArray[np.int64]


@cache
def character_tables() -> CharacterTables:
    folds = np.arange(_SIZE, dtype=np.uint32)
    lengths = np.ones(_SIZE, np.uint8)
    marks = np.zeros(_SIZE, np.bool_)
    pool_starts = np.zeros(_SIZE, np.int64)
    pool: list[int] = []
    classes = _classes()
    joining = _joining()
    for point in _points():
        character = chr(point)
        form = folded(character)
        if form != character:
            codes = [ord(each) for each in form]
            if len(codes) > 1 and not classes[codes].any():
                codes = [SEPARATOR]
            lengths[point] = len(codes)
            if len(codes) == 1:
                folds[point] = codes[0]
            else:
                pool_starts[point] = len(pool)
                pool += codes
        first = {text[0] for text in (form, unicodedata.normalize("NFKD", character)) if text}
        if any(unicodedata.combining(each) or ord(each) in joining for each in first):
            marks[point] = True
    lengths[0xE0000:0xE1000] = 0  # invisible tags and variation selectors
    packed = folds | (classes[folds].astype(np.uint32) << CLASS_SHIFT)
    packed[marks | (lengths != 1)] |= SPECIAL
    return CharacterTables(
        packed=packed,
        classes=classes,
        lengths=lengths,
        marks=marks,
        pool=np.array(pool, np.uint32),
        pool_starts=pool_starts,
    )


def _points() -> Iterator[int]:
    start = 0
    for first, last in _PLAIN:
        yield from range(start, first)
        start = last + 1


def _joining() -> frozenset[int]:
    """Code points that may join with the one before them into one: second parts of canonical compositions."""
    found = set(_HANGUL_JOINING)
    for point in _points():
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            found.add(int(parts[1], 16))
    return frozenset(found)


def _classes() -> NDArray[np.uint8]:
    classes = np.zeros(_SIZE, np.uint8)
    for ranges, bits in zip(word_ranges(), (WORD, WORD | UNSPACED_WORD), strict=True):
        for first, last in ranges:
            classes[first : last + 1] = bits
    for point in _points():
        character = chr(point)
        if character.isdecimal():
            classes[point] |= DIGIT
        elif character.isspace():
            classes[point] |= SPACE
    classes[[ord(sign) for sign in SIGNS]] |= SIGN
    return classes
