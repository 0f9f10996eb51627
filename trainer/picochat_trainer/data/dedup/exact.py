"""Equal documents: a 128-bit digest of each document's normal form, and an index of all digests seen so far.

Two documents are equal where their texts are, after Unicode NFC and after every run of white space (ASCII white space;
no-break, thin and ideographic spaces; the line separator) counts as one space and none counts at either end. Case and punctuation do count. The
digest is the first half of SHA-256, which current processors compute in hardware: that two different texts among 10^9
documents share one has a probability below 10^-20.
"""

import hashlib
import unicodedata
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES: Final = 16

_WIDE_SPACES = ("\u00a0", "\u202f", "\u2009", "\u2028")
_IDEOGRAPHIC_SPACE: Final = "\u3000".encode()
_LEAD_OF_IDEOGRAPHIC: Final = _IDEOGRAPHIC_SPACE[:1]
_EMPTY: Final = 0xFFFF_FFFF
_FIRST_SLOTS: Final = 1 << 12
_FULL: Final = 0.7
"""Share of taken slots at which the index grows."""
_GROWTH: Final = 1.6
_RUN_OVER: Final = 1_024
"""Slots behind the last home. A run of so many taken slots has a probability below 10^-20 at this share."""


def fingerprint(text: str) -> bytes:
    """16 bytes that are equal for texts with the same normal form."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
        for space in _WIDE_SPACES:
            if space in text:
                text = text.replace(space, " ")
    raw = text.encode("utf-8", "surrogatepass")
    if _LEAD_OF_IDEOGRAPHIC in raw:  # quick to look for, which the space itself is not
        raw = raw.replace(_IDEOGRAPHIC_SPACE, b" ")
    # joining lines is much quicker than a split at every space; the split is for what that leaves over
    data = b" ".join([line for line in raw.split(b"\n") if line]).strip()
    codes = np.frombuffer(data, np.uint8)
    closest = np.minimum.reduce(np.maximum(codes[1:], codes[:-1]), initial=255)
    if closest <= ord(" ") or b"\t" in data or b"\r" in data or b"\v" in data or b"\f" in data:
        data = b" ".join(data.split())
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


class ExactIndex:
    """Digests in an open-addressed table: 29 to 46 bytes a document, about 100 for the moment in which it grows.

    Holds at most 2^32 - 1 documents. One process; documents are numbered in the order in which they were added.
    """

    def __init__(self) -> None:
        self._count = 0
        self._taken = 0
        self._open(_FIRST_SLOTS)

    def __len__(self) -> int:
        """Documents added, duplicates included."""
        return self._count

    @property
    def size_bytes(self) -> int:
        return self._high.nbytes + self._low.nbytes + self._number.nbytes

    def add(self, digest: bytes) -> int | None:
        """Number of the earlier document with this digest, or None if it is new. Every call numbers one document."""
        if self._taken > _FULL * self._homes:
            self._grow()
        number = self._count
        self._count += 1
        high, low = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
        numbers, highs, lows = self._numbers, self._highs, self._lows
        slot = (high * self._homes) >> 64
        while numbers[slot] != _EMPTY:
            if highs[slot] == high and lows[slot] == low:
                return numbers[slot]
            slot += 1
        highs[slot], lows[slot], numbers[slot] = high, low, number
        self._taken += 1
        return None

    def _open(self, homes: int) -> None:
        self._homes = homes
        self._high: NDArray[np.uint64] = np.zeros(homes + _RUN_OVER, np.uint64)
        self._low: NDArray[np.uint64] = np.zeros(homes + _RUN_OVER, np.uint64)
        self._number: NDArray[np.uint32] = np.full(homes + _RUN_OVER, _EMPTY, np.uint32)
        # single elements are read through memoryviews, several times quicker than through arrays
        self._highs, self._lows, self._numbers = self._high.data, self._low.data, self._number.data

    def _grow(self) -> None:
        """Move all digests, in the order of their homes, each to its home or the first slot behind the one before."""
        taken = np.flatnonzero(self._number != _EMPTY)
        taken = taken[np.argsort(self._high[taken], kind="stable")]
        high, low, number = self._high[taken], self._low[taken], self._number[taken]
        del taken, self._high, self._low, self._number, self._highs, self._lows, self._numbers
        self._open(int(self._homes * _GROWTH))
        step = np.arange(len(high))
        slot = np.maximum.accumulate(_scaled(high, self._homes) - step) + step
        self._high[slot], self._low[slot], self._number[slot] = high, low, number


def _scaled(high: NDArray[np.uint64], homes: int) -> NDArray[np.int64]:
    """`(high * homes) >> 64` without overflow, for homes below 2^32."""
    upper, lower = high >> np.uint64(32), high & np.uint64(0xFFFF_FFFF)
    factor = np.uint64(homes)
    return ((upper * factor + ((lower * factor) >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)
