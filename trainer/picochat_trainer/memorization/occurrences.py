"""How often windows of tokens occur in a text of any length: exact counts of a uniform sample of distinct windows.

One streaming pass in bounded memory. A window is kept where its hash is below a limit, and the limit is lowered when too
many are kept: all copies of a window have one hash, so what is left is counted from its first copy to its last, and each
different window is as likely as any other to be left (distinct sampling: Gibbons, VLDB 2001).
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.tokens.store import Tokens
from picochat_trainer.training.order import mix
from picochat_trainer.training.tokens import Spans, TokenSource

MAX_WINDOWS: Final = 1 << 18  # that are kept: 6 MiB
MAX_COUNTED: Final = 1 << 30  # tokens; of a longer text, evenly spaced blocks are counted
_BLOCK: Final = 1 << 20
_BASE: Final = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_NO_LIMIT: Final = np.uint64(2**64 - 1)

Hashes = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Occurrences:
    """Sampled distinct windows, by rising hash: an order in which any beginning is again a uniform sample."""

    hashes: Hashes
    counts: NDArray[np.int64]
    positions: NDArray[np.int64]
    """Where the first copy begins in the text."""
    limit: np.uint64
    """Windows with a hash below this were counted."""
    num_counted: int
    """Tokens that were looked at."""

    def occurring(self, low: int, high: int | None) -> "Occurrences":
        """Those with at least `low` and at most `high` copies."""
        most = self.counts.max(initial=0) if high is None else high
        return self._only((low <= self.counts) & (self.counts <= most))

    def without(self, other: "Occurrences") -> "Occurrences":
        """Those that do not occur in the other text at all: only where both were counted can that be told."""
        limit = min(self.limit, other.limit)
        return self._only((self.hashes < limit) & ~np.isin(self.hashes, other.hashes, assume_unique=True))

    def _only(self, kept: NDArray[np.bool_]) -> "Occurrences":
        return replace(
            self, hashes=self.hashes[kept], counts=self.counts[kept], positions=self.positions[kept]
        )


class WindowHashes:
    """Hashes of all windows of a block of tokens; equal for equal tokens wherever they stand."""

    def __init__(self, length: int, vocab_size: int, seed: int) -> None:
        self.length = length
        key = np.random.default_rng([seed, length]).integers(0, 1 << 63, dtype=np.uint64)
        self._values = mix(np.arange(vocab_size, dtype=np.uint64) ^ key)
        size = _BLOCK + length
        self._powers = _powers(_BASE, size)
        self._inverses = _powers(pow(_BASE, -1, 1 << 64), size)

    def of(self, tokens: Tokens) -> Hashes:
        """uint64 (len(tokens) - length + 1), for at most a block and one window of tokens."""
        sums = np.zeros(len(tokens) + 1, dtype=np.uint64)
        np.cumsum(self._values[tokens] * self._powers[: len(tokens)], out=sums[1:])
        hashes = sums[self.length :] - sums[: -self.length]
        hashes *= self._inverses[: len(hashes)]
        return mix(hashes)


def count_windows(
    tokens: TokenSource,
    spans: Spans,
    hashing: WindowHashes,
    *,
    max_windows: int = MAX_WINDOWS,
    max_counted: int = MAX_COUNTED,
) -> Occurrences:
    """Count windows that lie inside one of `spans`; `tokens` are those spans, read as one text."""
    sample = _Sample(max_windows)
    ends = np.cumsum(spans.lengths)
    num_counted = 0
    for start in _block_starts(len(tokens), max_counted):
        num_counted += min(_BLOCK, len(tokens) - start)
        size = min(_BLOCK + hashing.length - 1, len(tokens) - start)
        if size < hashing.length:
            continue
        hashes = hashing.of(tokens.windows(np.array([start]), size)[0])
        inside = _inside_a_span(start, len(hashes), ends, hashing.length)
        places = np.flatnonzero((hashes < sample.limit) & inside)
        sample.add(hashes[places], start + places)
    return sample.finish(num_counted)


class _Sample:
    """The windows with the lowest hashes so far."""

    def __init__(self, capacity: int) -> None:
        self.limit = _NO_LIMIT
        self._capacity = capacity
        self._parts: list[tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]] = []
        self._pending = 0

    def add(self, hashes: Hashes, positions: NDArray[np.int64]) -> None:
        self._parts.append((hashes, np.ones(len(hashes), dtype=np.int64), positions))
        self._pending += len(hashes)
        if self._pending > 4 * self._capacity:
            self._merge()

    def finish(self, num_counted: int) -> Occurrences:
        hashes, counts, positions = self._merge()
        return Occurrences(
            hashes=hashes, counts=counts, positions=positions, limit=self.limit, num_counted=num_counted
        )

    def _merge(self) -> tuple[Hashes, NDArray[np.int64], NDArray[np.int64]]:
        """All parts as one, with the limit lowered to what there is room for."""
        if not self._parts:
            return np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64)
        hashes, counts, positions = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(hashes, kind="stable")  # the first copy stays first
        hashes = hashes[order]
        firsts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
        kept = firsts[: self._capacity]
        if len(firsts) > self._capacity:
            self.limit = hashes[firsts[self._capacity]]
        counts = np.add.reduceat(counts[order], firsts)[: len(kept)] if len(firsts) else counts
        merged = (hashes[kept], counts, positions[order][kept])
        self._parts, self._pending = [merged], len(kept)
        return merged


def _inside_a_span(start: int, count: int, ends: NDArray[np.int64], length: int) -> NDArray[np.bool_]:
    """For windows that begin at `start` and the `count` - 1 places after it: does no span end inside the window?"""
    near = ends[np.searchsorted(ends, start, side="right") : np.searchsorted(ends, start + count + length)]
    steps = np.zeros(count + 1, dtype=np.int32)
    np.add.at(steps, np.clip(near - length + 1 - start, 0, count), 1)
    np.add.at(steps, np.clip(near - start, 0, count), -1)
    return np.cumsum(steps[:-1]) == 0


def _block_starts(num_tokens: int, max_counted: int) -> list[int]:
    starts = np.arange(0, num_tokens, _BLOCK)
    most = max(1, max_counted // _BLOCK)
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
    return [int(start) for start in starts]


def _powers(base: int, count: int) -> Hashes:
    """base^0, base^1, ... modulo 2^64."""
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)
