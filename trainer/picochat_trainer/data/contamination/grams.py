"""Hashes of n-grams, and a table that finds the few of them that matter among millions.

A bitmap answers nearly every question that is to be answered with no; what it lets through is looked up in the exact set, so
no gram is ever missed. Equal hashes of unequal grams are possible and are for the caller to tell apart.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.measures import NGRAM
from picochat_trainer.data.contamination.tokens import Hashes, Places

SEED: Final = NGRAM // 2
"""Tokens of the n-grams that edited copies of short items are found by: of 8 with one replaced, 4 in a row are left."""
LONG_SEED: Final = 5
"""The same for items from `LONG_FROM` tokens on, which keep 5 in a row. Far fewer passages share 5 words by chance."""
LONG_FROM: Final = 2 * NGRAM
_BITS_PER_GRAM: Final = 16
_BUCKETS_PER_GRAM: Final = 2
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)
_FACTORS: Final = {
    1: np.uint64(0x8A5CD789635D2DFF),
    2: np.uint64(0x121FD2155C472F97),
    3: np.uint64(0x94D049BB133111EB),
    4: np.uint64(0xFF51AFD7ED558CCD),
}


class Grams(NamedTuple):
    """Hashes of so many tokens in a row, for every token at which there are as many."""

    seeds: Hashes
    long_seeds: Hashes
    ngrams: Hashes


def gram_hashes(hashes: Hashes) -> Grams:
    pairs = _joined(hashes, hashes[1:], 1)
    seeds = _joined(pairs, pairs[2:], 2)
    return Grams(seeds, _joined(seeds, hashes[SEED:], 3), _joined(seeds, seeds[SEED:], 4))


def _joined(left: Hashes, right: Hashes, depth: int) -> Hashes:
    joined = left[: len(right)] * _FACTORS[depth]
    joined += right
    return joined


@dataclass(frozen=True, kw_only=True)
class GramTable:
    """Where G different grams stand in the patterns: E entries, sorted by gram."""

    keys: Hashes
    """G hashes, each times `_MIX`, ascending."""
    buckets: NDArray[np.int32]
    """The keys whose first bits are b are `keys[buckets[b]]` up to `keys[buckets[b + 1]]`."""
    deepest: int
    """Keys in the fullest bucket."""
    first_entry: NDArray[np.int32]
    """G + 1 numbers: the entries of gram g are `first_entry[g]` up to `first_entry[g + 1]`."""
    patterns: NDArray[np.int32]
    firsts: NDArray[np.int32]
    """Token of the pattern at which the gram begins."""
    whole: NDArray[np.bool_]
    """Whether this entry stands for the pattern as a whole: one a pattern."""
    counted: NDArray[np.bool_]
    """Whether the entry counts by itself: it is no template."""
    bitmap: NDArray[np.uint8]

    @classmethod
    def build(
        cls,
        hashes: Hashes,
        patterns: NDArray[np.int32],
        firsts: NDArray[np.int32],
        *,
        whole: NDArray[np.bool_],
        counted: NDArray[np.bool_],
    ) -> "GramTable":
        mixed = hashes * _MIX
        order = np.argsort(mixed, kind="stable")
        mixed = mixed[order]
        begins = np.flatnonzero(np.append(True, mixed[1:] != mixed[:-1])[: len(mixed)])
        keys = mixed[begins]
        buckets = _buckets(keys)
        return cls(
            keys=keys,
            buckets=buckets,
            deepest=int(np.diff(buckets).max()),
            first_entry=np.append(begins, len(mixed)).astype(np.int32),
            patterns=patterns[order],
            firsts=firsts[order],
            whole=whole[order],
            counted=counted[order],
            bitmap=_bitmap(keys),
        )

    def lookup(self, hashes: Hashes) -> tuple[Places, Places]:
        """Places in `hashes` that hold a gram of the table, and the number of the gram."""
        mixed = hashes * _MIX
        slots = _first_bits(mixed, len(self.bitmap) * 8)
        bits = self.bitmap.take(slots >> np.uint64(3))
        bits >>= slots.astype(np.uint8) & np.uint8(7)
        bits &= np.uint8(1)
        places = np.flatnonzero(bits.view(np.bool_))
        wanted = mixed[places]
        buckets = _first_bits(wanted, len(self.buckets) - 1)
        candidates, ends = self.buckets[buckets].astype(np.int64), self.buckets[buckets + np.uint64(1)]
        found = np.full(len(places), -1)
        for step in range(self.deepest):
            left = np.flatnonzero(candidates + step < ends)
            same = left[self.keys[candidates[left] + step] == wanted[left]]
            found[same] = candidates[same] + step
        known = found >= 0
        return places[known], found[known]

    def entries(self, places: Places, grams: Places) -> tuple[Places, Places]:
        """Every (place, entry) of the grams found, in the order of the places."""
        first = self.first_entry[grams].astype(np.int64)
        counts = self.first_entry[grams + 1] - first
        repeated = np.repeat(places, counts)
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts) - counts, counts)
        return repeated, np.repeat(first, counts) + within


def _bitmap(keys: Hashes) -> NDArray[np.uint8]:
    size = _power_of_two(len(keys) * _BITS_PER_GRAM)
    bitmap = np.zeros(size // 8, np.uint8)
    slots = _first_bits(keys, size)
    np.bitwise_or.at(bitmap, slots >> np.uint64(3), np.uint8(1) << (slots.astype(np.uint8) & np.uint8(7)))
    return bitmap


def _buckets(keys: Hashes) -> NDArray[np.int32]:
    size = _power_of_two(len(keys) * _BUCKETS_PER_GRAM)
    return np.searchsorted(_first_bits(keys, size), np.arange(size + 1, dtype=np.uint64)).astype(np.int32)


def _power_of_two(size: int) -> int:
    return int(1 << max(16, (size - 1).bit_length()))


def _first_bits(mixed: Hashes, size: int) -> Hashes:
    """Numbers below `size`, a power of two."""
    return mixed >> np.uint64(65 - size.bit_length())
