"""Sets of word 5-gram hashes of documents, in numpy over many documents at a time. No torch.

Words are those of `data/normalize.py`. A document with fewer than five words has one shingle, of all its words, so short
documents are alike only where their words are equal; one without words has none. Nothing is cut off: a long document is
hashed piece by piece.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.tokens import tokenize

SHINGLE_WORDS: Final = 5
PIECE_CHARACTERS: Final = 1 << 17
"""Characters hashed at once: the arrays then stay in the processor's cache."""
BETWEEN: Final = "\0"
"""Stands between pieces of different documents: in no word, and no white space that a sign could reach over."""


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
    hashed = [_piece_words(pieces, owners) for pieces, owners in _packed(texts)]
    words = np.concatenate([words for words, _ in hashed] or [np.zeros(0, np.uint64)])
    owners = np.concatenate([owners for _, owners in hashed] or [np.zeros(0, np.int64)])
    counts = np.bincount(owners, minlength=len(texts)).astype(np.int64)
    shingles, shingle_owners = _shingles(words, owners, counts, seed)
    keys = np.sort((shingle_owners.astype(np.uint64) << np.uint64(32)) | shingles)
    keys = keys[np.append(True, keys[1:] != keys[:-1])] if len(keys) else keys
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.int64), minlength=len(texts))
    return ShingleSets(hashes=keys.astype(np.uint32), sizes=sizes.astype(np.int64))


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
    """Texts in lots of about PIECE_CHARACTERS, with the number of the document of each piece."""
    pieces: list[str] = []
    owners: list[int] = []
    held = 0
    for number, text in enumerate(texts):
        for piece in _pieces(text):
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
    pieces: Sequence[str], owners: Sequence[int]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash and document number of every word."""
    tokens = tokenize(BETWEEN.join(pieces))
    lengths = np.fromiter((len(piece) + len(BETWEEN) for piece in pieces), np.int64, len(pieces))
    # a mark at the beginning of a piece is counted to the sign before it: that one is the next piece's
    ends = np.cumsum(lengths) - len(BETWEEN)
    words_before = np.append(np.searchsorted(tokens.starts, ends[:-1]), len(tokens))
    return tokens.hashes, np.repeat(np.asarray(owners, np.int64), np.diff(words_before, prepend=0))


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
