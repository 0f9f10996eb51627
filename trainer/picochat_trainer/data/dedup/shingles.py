"""Sets of word 5-gram hashes of documents, in numpy over many documents at a time. No torch.

Words are those of `data/normalize.py`, found by array operations instead of a regular expression; only signs beside digits
outside ASCII or with more than one space between are told apart differently. A document with fewer than five words has one
shingle, of all its words, so short documents are alike only where their words are equal; one without words has none.
Nothing is cut off: a long document is hashed piece by piece.
"""

import functools
import hashlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.normalize import SIGNS, folded, word_ranges

SHINGLE_WORDS: Final = 5
PIECE_CHARACTERS: Final = 1 << 17
"""Characters hashed at once: the arrays then stay in the processor's cache."""

_OTHER, _WORD, _SINGLE, _SIGN = range(4)  # classes of characters
_SPACE, _ZERO, _NINE = ord(" "), ord("0"), ord("9")


@dataclass(frozen=True, kw_only=True)
class ShingleSets:
    """Shingle sets of n documents, one behind the other."""

    hashes: NDArray[np.uint32]
    """Distinct hashes, ascending within each document."""
    sizes: NDArray[np.int64]
    """(n,) distinct hashes per document."""

    @property
    def starts(self) -> NDArray[np.int64]:
        return np.cumsum(self.sizes) - self.sizes


def shingle_sets(texts: Sequence[str], seed: int) -> ShingleSets:
    """Shingle sets of `texts`, in order."""
    hashed = [_piece_words(pieces, owners, seed) for pieces, owners in _packed(texts)]
    words = np.concatenate([words for words, _ in hashed] or [np.zeros(0, np.uint64)])
    owners = np.concatenate([owners for _, owners in hashed] or [np.zeros(0, np.int64)])
    counts = np.bincount(owners, minlength=len(texts)).astype(np.int64)
    shingles, shingle_owners = _shingles(words, owners, counts, seed)
    keys = np.sort((shingle_owners.astype(np.uint64) << np.uint64(32)) | shingles)
    keys = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(texts))
    return ShingleSets(hashes=keys.astype(np.uint32), sizes=sizes.astype(np.int64))


def word_spans(text: str) -> list[tuple[int, int]]:
    """Character spans of the words of a folded text."""
    starts, ends = _spans(*_codes_and_classes(text))
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def constants(seed: int, purpose: str, count: int) -> NDArray[np.uint64]:
    """Odd 64-bit multipliers for a seed, the same with every version of numpy."""
    digest = hashlib.shake_256(f"picochat {purpose} {seed}".encode()).digest(8 * count)
    return np.frombuffer(digest, "<u8").astype(np.uint64) | np.uint64(1)


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Values whose every bit depends on all bits of the input (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _packed(texts: Iterable[str]) -> Iterator[tuple[list[str], list[int]]]:
    """Folded texts in lots of about PIECE_CHARACTERS, with the number of the document of each piece."""
    pieces: list[str] = []
    owners: list[int] = []
    held = 0
    for number, text in enumerate(texts):
        for piece in _pieces(folded(text)):
            if held + len(piece) >= PIECE_CHARACTERS and pieces:
                yield pieces, owners
                pieces, owners, held = [], [], 0
            pieces.append(piece)
            owners.append(number)
            held += len(piece) + 1
    if pieces:
        yield pieces, owners


def _pieces(text: str) -> Iterator[str]:
    """Cut at spaces, so that no word is cut unless it is longer than a piece."""
    start = 0
    while len(text) - start >= PIECE_CHARACTERS:
        end = max(
            text.rfind(" ", start, start + PIECE_CHARACTERS),
            text.rfind("\n", start, start + PIECE_CHARACTERS),
        )
        end = end if end > start else start + PIECE_CHARACTERS - 1
        yield text[start:end]
        start = end
    yield text[start:]


def _piece_words(
    pieces: Sequence[str], owners: Sequence[int], seed: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash and document number of every word."""
    codes, classes = _codes_and_classes("\n".join(pieces))
    starts, ends = _spans(codes, classes)
    powers, inverses = _powers(seed)
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    # a polynomial in the word's characters: the same wherever in the piece the word stands
    words = mixed((sums[ends] - sums[starts]) * inverses[starts])
    lengths = np.fromiter((len(piece) + 1 for piece in pieces), np.int64, len(pieces))
    words_before = np.searchsorted(starts, np.cumsum(lengths))
    return words, np.repeat(np.asarray(owners, np.int64), np.diff(words_before, prepend=0))


def _codes_and_classes(text: str) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint8]]:
    if text.isascii():
        data = text.encode("ascii")
        return np.frombuffer(data, np.uint8), np.frombuffer(
            bytearray(data.translate(_ascii_classes())), np.uint8
        )
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return codes, _classes()[codes]


def _spans(
    codes: NDArray[np.unsignedinteger], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of words. Changes `classes`: signs become words of one character, or separators."""
    signs = np.flatnonzero(classes == _SIGN)
    if len(signs):
        classes[signs] = np.where(_between_digits(codes, signs), _SINGLE, _OTHER)
    in_word = np.zeros(len(classes) + 2, np.bool_)
    np.equal(classes, _WORD, out=in_word[1:-1])
    edges = np.flatnonzero(in_word[1:] != in_word[:-1])
    starts, ends = edges[::2], edges[1::2]
    singles = np.flatnonzero(classes == _SINGLE)
    if len(singles):
        starts = np.sort(np.concatenate([starts, singles]))
        ends = np.sort(np.concatenate([ends, singles + 1]))
    return starts, ends


def _between_digits(codes: NDArray[np.unsignedinteger], signs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a digit stands on both sides, each with at most one space between."""
    padded = np.zeros(len(codes) + 4, np.uint32)
    padded[2:-2] = codes
    near = np.ones(len(signs), np.bool_)
    for step in (-1, 1):
        beside, beyond = padded[signs + 2 + step], padded[signs + 2 + 2 * step]
        reached = np.where(beside == _SPACE, beyond, beside)
        near &= (reached >= _ZERO) & (reached <= _NINE)
    return near


def _shingles(
    words: NDArray[np.uint64], owners: NDArray[np.int64], counts: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash below 2^32 and document number of every shingle; `counts` are words per document."""
    factors = constants(seed, "shingle", SHINGLE_WORDS)
    padded = np.concatenate([words, np.zeros(SHINGLE_WORDS - 1, np.uint64)])
    rolling = words * factors[0]
    for place in range(1, SHINGLE_WORDS):
        rolling += padded[place : len(words) + place] * factors[place]
    first = np.cumsum(counts) - counts
    short = np.flatnonzero((counts > 0) & (counts < SHINGLE_WORDS))
    for place in range(1, SHINGLE_WORDS):  # what was added of the words of later documents
        beyond = first[short[counts[short] <= place]]
        rolling[beyond] -= padded[beyond + place] * factors[place]
    last = SHINGLE_WORDS - 1
    is_start = np.zeros(len(words), np.bool_)
    np.equal(owners[last:], owners[:-last], out=is_start[:-last])
    is_start[first[short]] = True
    return mixed(rolling[is_start]) >> np.uint64(32), owners[is_start]


@functools.lru_cache(maxsize=2)
def _powers(seed: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Powers of an odd base modulo 2^64, and their inverses."""
    base = int(constants(seed, "word", 1)[0])
    factors = np.full((2, PIECE_CHARACTERS + 1), 1, np.uint64)
    factors[0, 1:], factors[1, 1:] = base, pow(base, -1, 1 << 64)
    powers = np.cumprod(factors, axis=1, dtype=np.uint64)
    return powers[0], powers[1]


@functools.cache
def _classes() -> NDArray[np.uint8]:
    """Class of every code point, by the definitions of `normalize.words`."""
    classes = np.zeros(sys.maxunicode + 1, np.uint8)
    for name, ranges in zip((_WORD, _SINGLE), word_ranges(), strict=True):
        for first, last in ranges:
            classes[first : last + 1] = name
    classes[[ord(sign) for sign in SIGNS]] = _SIGN
    return classes


@functools.cache
def _ascii_classes() -> bytes:
    return _classes()[:256].tobytes()
