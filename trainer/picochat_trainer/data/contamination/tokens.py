"""Splits text into the tokens of `data.normalize` with numpy: a hash and a place for each, at a few ns a character.

A hash is a polynomial over the token's folded characters modulo 2**64, so equal tokens always have equal hashes. Unequal
ones may too: whoever finds a hash must compare the text.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.characters import (
    DIGIT,
    SIGN,
    SPACE,
    UNSPACED_WORD,
    WORD,
    CharacterTables,
    character_tables,
)
from picochat_trainer.data.normalize import SIGNS, folded

_BASE: Final = 0xD6E8FEB86659FD93
_MIX: Final = 0x9E3779B97F4A7C15
_YPOGEGRAMMENI: Final = (
    "\u0345"  # folds to a letter, which other accents may overtake: not to be folded alone
)
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """T tokens of one text."""

    hashes: Hashes
    starts: Places
    """First character of each token in the text."""
    ends: Places
    folded: str
    """The text that tokens are cut of."""
    folded_starts: Places
    folded_ends: Places

    def __len__(self) -> int:
        return len(self.hashes)

    def words(self, first: int, last: int) -> list[str]:
        """The tokens from `first` up to, not including, `last`."""
        spans = zip(
            self.folded_starts[first:last].tolist(), self.folded_ends[first:last].tolist(), strict=True
        )
        return [self.folded[start:end] for start, end in spans]


def tokenize(text: str) -> Tokens:
    """The same tokens as `normalize.words(text)`."""
    if text.isascii():
        codes: NDArray = np.frombuffer(text.encode("ascii"), np.uint8)
        classes, values = _ascii_tables()
        starts, ends = _bounds(classes.take(codes), signs=any(sign in text for sign in SIGNS))
        hashes = _hashes(values[codes], starts, ends)
        return Tokens(
            hashes=hashes,
            starts=starts,
            ends=ends,
            folded=text.lower(),
            folded_starts=starts,
            folded_ends=ends,
        )
    return _tokenize_unicode(text)


def _tokenize_unicode(text: str) -> Tokens:
    tables = character_tables()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    form, sources, following = tables.folds.take(codes), None, None
    if tables.special.take(codes).any():
        lengths, marks = tables.lengths.take(codes).astype(np.int64), tables.marks.take(codes)
        if (lengths != 1).any() or not _is_folded(form, text):
            form, sources, following = _fold_special(text, codes, lengths, marks, tables)
    classes = tables.classes.take(form)
    starts, ends = _bounds(classes, signs=bool((classes & SIGN).any()))
    return Tokens(
        hashes=_hashes(_value(form), starts, ends),
        starts=starts if sources is None else sources[starts],
        ends=ends if following is None else following[ends - 1],
        folded=form.tobytes().decode("utf-32-le", "surrogatepass"),
        folded_starts=starts,
        folded_ends=ends,
    )


def _fold_special(
    text: str,
    codes: NDArray[np.uint32],
    lengths: Places,
    marks: NDArray[np.bool_],
    tables: CharacterTables,
) -> tuple[NDArray[np.uint32], Places, Places]:
    """The folded characters, the place in the text that each is of, and the place after that one."""
    starts = tables.pool_starts.take(codes)
    form, sources, following = _expand(codes, lengths, starts, tables.pool, tables.folds)
    if marks.any() and not _is_folded(form, text):
        lengths, starts, pool = _join_marks(text, marks | (lengths == 0), lengths, starts, tables.pool)
        form, sources, following = _expand(codes, lengths, starts, pool, tables.folds)
    return form, sources, following


def _expand(
    codes: NDArray[np.uint32],
    lengths: Places,
    pool_starts: Places,
    pool: NDArray[np.uint32],
    folds: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], Places, Places]:
    """Negative `pool_starts` - 1 stand for single characters that come from the pool too."""
    sources = np.repeat(np.arange(len(codes)), lengths)
    form = folds[codes[sources]]
    pooled = (lengths > 1) | (pool_starts < 0)
    inside = np.flatnonzero(pooled[sources])
    firsts = np.cumsum(lengths) - lengths
    of = sources[inside]
    begin = np.where(pool_starts < 0, -1 - pool_starts, pool_starts)
    form[inside] = pool[begin[of] + inside - firsts[of]]
    # A character that folds to nothing belongs to the one before it.
    visible = np.append(np.flatnonzero(lengths), len(codes))
    following = visible[np.searchsorted(visible, sources, side="right")]
    return form, sources, following


def _is_folded(form: NDArray[np.uint32], text: str) -> bool:
    """Whether characters that were folded one by one are `folded` of the whole: nothing joins or changes place."""
    shown = form.tobytes().decode("utf-32-le", "surrogatepass")
    return _YPOGEGRAMMENI not in text and unicodedata.is_normalized("NFKC", shown)


def _join_marks(
    text: str, joins: NDArray[np.bool_], lengths: Places, pool_starts: Places, pool: NDArray[np.uint32]
) -> tuple[Places, Places, NDArray[np.uint32]]:
    """Fold each character together with the marks after it; all that comes out belongs to the first of them."""
    bounds = np.flatnonzero(np.diff(joins.astype(np.int8), prepend=0, append=0))
    lengths, pool_starts = lengths.copy(), pool_starts.copy()
    added: list[int] = []
    forms: dict[str, list[int]] = {}
    for first, end in zip(bounds[::2].tolist(), bounds[1::2].tolist(), strict=True):
        start = max(0, first - 1)
        cluster = text[start:end]
        codes = forms.get(cluster)
        if codes is None:
            codes = forms[cluster] = [ord(each) for each in folded(cluster)]
        lengths[start:end] = 0
        lengths[start] = len(codes)
        pool_starts[start] = -1 - (len(pool) + len(added))
        added += codes
    return lengths, pool_starts, np.append(pool, np.array(added, np.uint32))


def _bounds(classes: NDArray[np.uint8], *, signs: bool) -> tuple[Places, Places]:
    """First character and end of every token."""
    padded = np.zeros(len(classes) + 2, np.uint8)
    padded[1:-1] = classes
    # Counting in booleans is several times faster than in bytes.
    word = (padded & WORD).view(np.bool_)
    alone = (padded & UNSPACED_WORD) != 0
    cut = word[1:] != word[:-1]
    if alone.any():
        inside = word[1:] & word[:-1] & (alone[1:] | alone[:-1])
        starts, ends = np.flatnonzero((cut | inside) & word[1:]), np.flatnonzero((cut | inside) & word[:-1])
    else:
        edges = np.flatnonzero(cut)
        starts, ends = edges[::2], edges[1::2]
    if signs:
        at = _signs(classes, starts, ends)
        if len(at):
            order = np.searchsorted(starts, at)
            starts, ends = np.insert(starts, order, at), np.insert(ends, order, at + 1)
    return starts, ends


def _signs(classes: NDArray[np.uint8], starts: Places, ends: Places) -> Places:
    """Signs with a digit on both sides and nothing but white space between."""
    at = np.flatnonzero((classes & SIGN) != 0)
    after = np.searchsorted(starts, at)
    inner = (after > 0) & (after < len(starts))
    at, after = at[inner], after[inner]
    left, right = ends[after - 1], starts[after]
    digits = (classes[left - 1] & classes[right] & DIGIT) != 0
    at, left, right = at[digits], left[digits], right[digits]
    wide = (at - left > 1) | (right - at > 2)
    space = (classes & SPACE) != 0
    blank = (space[left] | (left == at)) & (space[right - 1] | (right == at + 1))
    for place in np.flatnonzero(wide & blank).tolist():
        blank[place] = space[left[place] : at[place]].all() and space[at[place] + 1 : right[place]].all()
    return at[blank]


def _hashes(values: Hashes, starts: Places, ends: Places) -> Hashes:
    """Polynomials of all tokens from one running sum: the sum from start to end, divided by the power at start."""
    if not len(starts):
        return np.zeros(0, np.uint64)
    powers, inverses = _powers(1 << (len(values)).bit_length())
    values *= powers[: len(values)]
    sums = np.empty(len(values) + 1, np.uint64)
    sums[0] = 0
    np.cumsum(values, out=sums[1:])
    hashes = sums[ends] - sums[starts]
    hashes *= inverses[starts]
    hashes ^= hashes >> np.uint64(31)
    hashes *= np.uint64(_MIX)
    return hashes


@cache
def _powers(size: int) -> tuple[Hashes, Hashes]:
    powers = np.full(size, _BASE, np.uint64)
    inverses = np.full(size, pow(_BASE, -1, 1 << 64), np.uint64)
    powers[0] = inverses[0] = 1
    return np.cumprod(powers, dtype=np.uint64), np.cumprod(inverses, dtype=np.uint64)


def _value(codes: NDArray[np.uint32]) -> Hashes:
    values = codes.astype(np.uint64)
    values += np.uint64(1)
    values *= np.uint64(_MIX)
    values ^= values >> np.uint64(29)
    return values


@cache
def _ascii_tables() -> tuple[NDArray[np.uint8], Hashes]:
    """Class and value of each ASCII byte, upper case as lower case."""
    text = "".join(map(chr, range(128))).lower()
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.uint32)
    classes = np.zeros(128, np.uint8)
    for place, character in enumerate(text):
        classes[place] = (
            (WORD if character.isalnum() else 0)
            | (DIGIT if character.isdecimal() else 0)
            | (SIGN if character in SIGNS else 0)
            | (SPACE if character.isspace() else 0)
        )
    return classes, _value(codes)
