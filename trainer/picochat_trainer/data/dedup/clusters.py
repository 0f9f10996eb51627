"""Clusters of similar documents by union-find over verified pairs, and who is kept of each."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.dedup.sketches import SketchFile

ROUNDS_PER_BAND: Final = 8
"""Documents of a group to which the rest of the group is compared; a pair missed here meets again in another band."""
LARGE_GROUP: Final = 64
"""What is left of a larger group after two rounds shares a text rather than being one: it is not compared further."""
ROUNDS_PER_CLUSTER: Final = 512
"""Documents kept of one cluster to which the rest is compared; what is still unlike them all is kept without more."""

_KEPT: Final = 0xFFFF_FFFF


class Removed(Mapping[int, tuple[int, float]]):
    """Removed document -> (kept document, similarity), at 8 bytes for every document of the corpus."""

    def __init__(self, kept: NDArray[np.uint32], similarity: NDArray[np.float32]) -> None:
        self._kept, self._similarity = kept, similarity

    def __getitem__(self, number: int) -> tuple[int, float]:
        if number not in self:
            raise KeyError(number)
        return int(self._kept[number]), float(self._similarity[number])

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and 0 <= number < len(self._kept) and self._kept[number] != _KEPT

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._kept != _KEPT).tolist())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._kept != _KEPT))


class Clusters:
    """Grows by groups of candidates; only pairs whose similarity reaches the threshold join."""

    def __init__(self, sketches: SketchFile, threshold: float) -> None:
        self._sketches = sketches.reader()
        self._threshold = threshold
        self._parents: NDArray[np.uint32] = np.arange(len(self._sketches.sizes), dtype=np.uint32)

    def join(self, numbers: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Compare the members of each group with its first, those unlike it with the first of themselves, and so on."""
        for number in range(ROUNDS_PER_BAND):
            if number == 2:
                small = sizes <= LARGE_GROUP
                numbers, sizes = numbers[np.repeat(small, sizes)], sizes[small]
            first, rest, groups = _split(numbers, sizes)
            apart = self._roots(first) != self._roots(rest)
            first, rest, groups = first[apart], rest[apart], groups[apart]
            if not len(rest):
                return
            alike = self._similarities(first, rest) >= self._threshold
            for one, other in zip(first[alike].tolist(), rest[alike].tolist(), strict=True):
                self._unite(one, other)
            numbers, sizes = rest[~alike], np.bincount(groups[~alike])

    def resolve(self) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Per document the one that it is removed for (0xFFFFFFFF: it is kept) and their similarity."""
        kept = np.full(len(self._parents), _KEPT, np.uint32)
        similarity = np.zeros(len(self._parents), np.float32)
        numbers, sizes = self._members()
        for _ in range(ROUNDS_PER_CLUSTER):
            first, rest, clusters = _split(numbers, sizes)
            if not len(rest):
                break
            found = self._similarities(first, rest)
            alike = found >= self._threshold
            kept[rest[alike]], similarity[rest[alike]] = first[alike], found[alike]
            numbers, sizes = rest[~alike], np.bincount(clusters[~alike])
        return kept, similarity

    def _similarities(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
        """Similarity of each pair; 0 where the sizes alone rule the threshold out."""
        sizes = self._sketches.sizes
        smaller, larger = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
        possible = np.flatnonzero(smaller >= larger * self._threshold)
        found = np.zeros(len(left), np.float32)
        found[possible] = self._sketches.similarities(left[possible], right[possible])
        return found

    def _members(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Documents of all clusters of two or more, ascending within each, and the clusters' sizes."""
        roots = self._roots(np.arange(len(self._parents)))
        members = np.flatnonzero(np.bincount(roots, minlength=len(roots))[roots] > 1)
        members = members[np.argsort(roots[members], kind="stable")]
        sizes = np.bincount(roots[members])
        return members, sizes[sizes > 0]

    def _roots(self, numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
        roots = self._parents[numbers]
        while len(roots) and (roots != (above := self._parents[roots])).any():
            roots = above
        self._parents[numbers] = roots
        return roots

    def _unite(self, one: int, other: int) -> None:
        parents = self._parents
        while one != parents[one]:
            one = int(parents[one])
        while other != parents[other]:
            other = int(parents[other])
        parents[max(one, other)] = min(one, other)


def _split(
    numbers: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First member of each group beside each other member, and the number of the group."""
    sizes = sizes[sizes > 0]
    starts = np.cumsum(sizes) - sizes
    others = np.ones(len(numbers), np.bool_)
    others[starts] = False
    groups = np.repeat(np.arange(len(sizes)), sizes - 1)
    return numbers[starts[groups]], numbers[others], groups
