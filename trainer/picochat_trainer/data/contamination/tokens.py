"""Splits text into the tokens of `data.normalize` with numpy: a hash and a place for each, at a few ns a character.

A hash is a polynomial over the token's folded characters modulo 2**64, so equal tokens always have equal hashes. Unequal
ones may too: whoever finds a hash must compare the text.
"""

import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.characters import (
    CLASS_SHIFT,
    CODE_BITS,
    DIGIT,
    SIGN,
    SPACE,
    SPECIAL,
    UNSPACED_WORD,
    WORD,
    CharacterTables,
    character_tables,
)
from picochat_trainer.data.normalize import SIGNS, folded

_BASE: Final = 0xD6E8FEB86659FD93
_MIX: Final = 0x9E3779B97F4A7C15
_APART: Final = 512
"""Marks that are farther apart, in characters, are looked at one by one: most text has none."""
_YPOGEGRAMMENI: Final = (
    "\u0345"  # folds to a letter, which other accents may overtake: not to be folded alone
)
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]
_Changes = dict[int, list[int]]


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """T tokens of one text."""

    hashes: Hashes
    starts: Places
    """First character of each token in the text."""
    ends: Places
    form: str | NDArray[np.uint32]
    """The text, if it is ASCII; else the folded characters."""
    folded_starts: Places
    folded_ends: Places

    @cached_property
    def folded(self) -> str:
        """The text that tokens are cut of; made when first asked for, as most text is never looked at again."""
        return self.form.lower() if isinstance(self.form, str) else _decode(self.form)

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
        codes = np.frombuffer(text.encode("ascii"), np.uint8)
        classes, values = _ascii_tables()
        starts, ends = _bounds(classes.take(codes), signs=any(sign in text for sign in SIGNS))
        hashes = _hashes(values[codes], starts, ends)
        return Tokens(
            hashes=hashes, starts=starts, ends=ends, form=text, folded_starts=starts, folded_ends=ends
        )
    return _tokenize_unicode(text)


def _tokenize_unicode(text: str) -> Tokens:
    tables = character_tables()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    entries = tables.packed.take(codes)
    form, classes = entries & CODE_BITS, (entries >> CLASS_SHIFT).astype(np.uint8)
    changes: _Changes = {}
    if entries.max() >= SPECIAL:
        changes = _changes(text, codes, form, np.flatnonzero(entries >= SPECIAL), tables)
    if changes:
        form = _changed(form, changes)
        classes = tables.classes.take(form)
    starts, ends = _bounds(classes, signs=bool((classes & SIGN).any()))
    in_text = _places_in_text(starts, ends, changes) if changes else (starts, ends)
    return Tokens(
        hashes=_hashes(form.astype(np.uint64), starts, ends),
        starts=in_text[0],
        ends=in_text[1],
        form=form,
        folded_starts=starts,
        folded_ends=ends,
    )


def _decode(codes: NDArray[np.uint32]) -> str:
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def _changes(
    text: str, codes: NDArray[np.uint32], form: NDArray[np.uint32], special: Places, tables: CharacterTables
) -> _Changes:
    """Characters that fold to none, to several, or together with others, and to what: by their place in the text."""
    found = codes[special]
    lengths, starts = tables.lengths[found], tables.pool_starts[found]
    several = lengths != 1
    changes = {
        place: tables.pool[start : start + length].tolist()
        for place, start, length in zip(
            special[several].tolist(), starts[several].tolist(), lengths[several].tolist(), strict=True
        )
    }
    marks = tables.marks[found]
    if marks.any():
        _join_marks(text, form, special[marks | (lengths == 0)], changes)
    return changes


def _join_marks(text: str, form: NDArray[np.uint32], joins: Places, changes: _Changes) -> None:
    """Fold characters together with the marks after them wherever that gives something else than one by one."""
    apart = np.flatnonzero(np.diff(joins) > _APART) + 1
    changed = sorted(changes)
    for group in np.split(joins, apart):
        first, end = max(0, int(group[0]) - 1), int(group[-1]) + 1
        inside = changed[bisect_left(changed, first) : bisect_left(changed, end)]
        alone = _changed(form[first:end], {place - first: changes[place] for place in inside})
        if _YPOGEGRAMMENI in text[first:end] or not unicodedata.is_normalized("NFKC", _decode(alone)):
            _join_clusters(text, group, changes)


def _join_clusters(text: str, joins: Places, changes: _Changes) -> None:
    """All that comes out of a character and the marks after it belongs to that character."""
    apart = np.flatnonzero(np.diff(joins) > 1) + 1
    firsts, lasts = joins[np.append(0, apart)], joins[np.append(apart, len(joins)) - 1]
    forms: dict[str, list[int]] = {}
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        # Nothing joins with the sign between two documents.
        start = first - 1 if first and text[first - 1] != "\0" else first
        cluster = text[start : last + 1]
        codes = forms.get(cluster)
        if codes is None:
            codes = forms[cluster] = [ord(each) for each in folded(cluster)]
        changes[start] = codes
        changes.update((place, []) for place in range(start + 1, last + 1))


def _changed(form: NDArray[np.uint32], changes: _Changes) -> NDArray[np.uint32]:
    if not changes:
        return form
    places = np.array(sorted(changes))
    lengths = [len(changes[place]) for place in places.tolist()]
    added = [code for place in places.tolist() for code in changes[place]]
    at = np.repeat(places - np.arange(len(places)), lengths)
    return np.insert(np.delete(form, places), at, np.array(added, np.uint32))


def _places_in_text(starts: Places, ends: Places, changes: _Changes) -> tuple[Places, Places]:
    """From places among the folded characters to places in the text."""
    places = np.array(sorted(changes))
    lengths = np.array([len(changes[place]) for place in places.tolist()])
    begins = places + np.cumsum(lengths - 1) - (lengths - 1)
    firsts, lasts = _sources(starts, places, lengths, begins), _sources(ends - 1, places, lengths, begins)
    # What folds to nothing belongs to the character before it.
    hidden = places[lengths == 0]
    at = np.searchsorted(hidden, lasts + 1)
    runs = hidden - np.arange(len(hidden))
    after = np.searchsorted(runs, lasts + 1 - at, side="right") - at
    return firsts, lasts + 1 + np.maximum(after, 0)


def _sources(folded_places: Places, places: Places, lengths: Places, begins: Places) -> Places:
    """The character of the text that each folded one is of; `begins` are the folded places of the changed ones."""
    change = np.searchsorted(begins, folded_places, side="right") - 1
    begin, place, length = begins[change], places[change], lengths[change]
    inside = folded_places < begin + length
    moved = np.where(inside, place, folded_places - begin - length + place + 1)
    return np.where(change < 0, folded_places, moved)


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
    return classes, codes.astype(np.uint64)
