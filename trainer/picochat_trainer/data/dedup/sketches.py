"""Bottom-k sketches of many documents in one file, and the Jaccard similarity of pairs of them.

Source: Cohen and Kaplan 2007, bottom-k sketches; Bar-Yossef et al. 2002. Below k elements the sketch is the set itself.
"""

import os
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

SKETCH_HASHES: Final = 256
PAIRS_AT_ONCE: Final = 1_024

_NO_HASH = np.uint32(0xFFFF_FFFF)


class SketchFile:
    """Writes sketches in order of documents into an open file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sizes: list[NDArray[np.uint32]] = []

    @property
    def num_documents(self) -> int:
        return sum(map(len, self._sizes))

    @property
    def sizes(self) -> NDArray[np.uint32]:
        """(n,) distinct shingles of each document."""
        if len(self._sizes) != 1:
            self._sizes = [np.concatenate([np.zeros(0, np.uint32), *self._sizes])]
        return self._sizes[0]

    def add(self, sizes: NDArray[np.uint32], sketch: NDArray[np.uint32]) -> None:
        self._sizes.append(sizes)
        self._file.write(sketch.tobytes())

    def reader(self) -> "SketchReader":
        """Reads what was added so far."""
        self._file.flush()
        return SketchReader(self._file.fileno(), self.sizes)


class SketchReader:
    def __init__(self, descriptor: int, sizes: NDArray[np.uint32]) -> None:
        self._descriptor = descriptor
        self.sizes = sizes
        ends = np.cumsum(np.minimum(sizes, SKETCH_HASHES), dtype=np.int64)
        self._starts = ends - np.minimum(sizes, SKETCH_HASHES)

    def similarities(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
        """Jaccard similarity of each pair of documents that have words."""
        found = [
            self._similarities(left[start : start + PAIRS_AT_ONCE], right[start : start + PAIRS_AT_ONCE])
            for start in range(0, len(left), PAIRS_AT_ONCE)
        ]
        return np.concatenate([np.zeros(0, np.float32), *found])

    def _similarities(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
        numbers, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        rows = self._rows(numbers)
        # a sketch that is not the whole set says nothing about hashes above its largest
        largest = np.where(self.sizes[numbers] > SKETCH_HASHES, rows[:, -1], _NO_HASH - 1)
        one, other = places[: len(left)], places[len(left) :]
        limits = np.minimum(largest[one], largest[other])[:, np.newaxis]
        both = np.concatenate([rows[one], rows[other]], axis=1)
        total = np.count_nonzero(both <= limits, axis=1)
        both.sort(axis=1)
        common = np.count_nonzero((both[:, 1:] == both[:, :-1]) & (both[:, 1:] <= limits), axis=1)
        return (common / (total - common)).astype(np.float32)

    def _rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        """(n, SKETCH_HASHES) sketches, filled up with _NO_HASH."""
        counts = np.minimum(self.sizes[numbers], SKETCH_HASHES).astype(np.int64)
        # read rather than mapped: pages of a mapping would count as this process's memory
        spans = zip((4 * counts).tolist(), (4 * self._starts[numbers]).tolist(), strict=True)
        found = np.frombuffer(b"".join([os.pread(self._descriptor, *span) for span in spans]), np.uint32)
        rows = np.full((len(numbers), SKETCH_HASHES), _NO_HASH, np.uint32)
        rows[np.arange(SKETCH_HASHES) < counts[:, np.newaxis]] = found
        return rows
