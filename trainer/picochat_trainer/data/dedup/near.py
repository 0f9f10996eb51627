"""Near duplicates: documents whose sets of word 5-grams have at least a given Jaccard similarity.

MinHash finds candidates (Broder 1997; banding as in Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4) and a
bottom-k sketch of the shingle hashes judges them, so the threshold is that of the similarity itself: exact for documents of
up to SKETCH_HASHES distinct shingles, with a standard error of at most 0.032 beyond. FineWeb's 14 bands of 8 rows catch 92 %
of pairs at 0.8 and take every candidate for a duplicate; here bands are wider, since candidates are judged (`banding`).

Verified pairs are joined into clusters. The first document of a cluster is kept, everything similar to it is removed in its
favour; of what is left the first is kept, and so on. So every removed document is similar to the one it names, and a
chain of small edits is not lost as a whole. The result depends on the order of documents and the seed, on nothing else.
"""

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.dedup.clusters import Clusters, Removed
from picochat_trainer.data.dedup.shingles import ShingleSets, constants, mixed, shingle_sets
from picochat_trainer.data.dedup.sketches import SKETCH_HASHES, SketchFile

NUM_HASHES: Final = 128
CATCH: Final = 0.99
"""Chance that a pair exactly at the threshold becomes a candidate."""
KEYS_AT_ONCE: Final = 1 << 23
"""Band keys sorted at a time: about 300 MB."""
CHARACTERS_AT_ONCE: Final = 1 << 18
"""Characters of the documents that are signed together: their arrays stay in the processor's cache."""
DEFAULT_SEED: Final = 42


@dataclass(frozen=True, kw_only=True)
class Signatures:
    """What the index needs of n documents: 1.6 kB each at most. Made in worker processes, pickled as they are."""

    threshold: float
    seed: int
    bands: NDArray[np.uint64]
    """(n, bands) keys; documents that share one are candidates."""
    sizes: NDArray[np.uint32]
    """(n,) distinct shingles; 0 for a document without words, which is nobody's duplicate."""
    sketch: NDArray[np.uint32]
    """The smallest SKETCH_HASHES shingle hashes of each document, ascending, one document behind the other."""

    def take(self, keep: NDArray[np.bool_]) -> "Signatures":
        """Those of the documents where `keep` is true."""
        lengths = np.minimum(self.sizes, SKETCH_HASHES)
        return replace(
            self, bands=self.bands[keep], sizes=self.sizes[keep], sketch=self.sketch[np.repeat(keep, lengths)]
        )


def banding(threshold: float) -> tuple[int, int]:
    """Bands and rows: as many rows as still catch a pair at the threshold with probability CATCH."""
    rows = max(
        (
            rows
            for rows in range(1, NUM_HASHES + 1)
            if 1 - (1 - threshold**rows) ** (NUM_HASHES // rows) >= CATCH
        ),
        default=1,
    )
    return NUM_HASHES // rows, rows


def sign(texts: Sequence[str], *, threshold: float = 0.8, seed: int = DEFAULT_SEED) -> Signatures:
    """Signatures of whole documents, however many are given.

    Takes some 11 bytes for a character of the longest document, 65 where every character is a word (Chinese).
    """
    parts = [_sign(lot, threshold, seed) for lot in _lots(texts)] or [_sign((), threshold, seed)]
    return replace(
        parts[0],
        bands=np.concatenate([part.bands for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        sketch=np.concatenate([part.sketch for part in parts]),
    )


class NearIndex:
    """Signatures of all documents, on disk in `work_dir`, until `removed` compares them.

    Memory: 24 bytes a document, and KEYS_AT_ONCE keys of one band at a time. Disk: at most 1.6 kB a document, gone on `close` or when the
    process ends.
    """

    def __init__(self, threshold: float, work_dir: Path, *, seed: int = DEFAULT_SEED) -> None:
        self._threshold, self._seed = threshold, seed
        work_dir.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            self._bands = [
                files.enter_context(tempfile.TemporaryFile(dir=work_dir))
                for _ in range(banding(threshold)[0])
            ]
            self._sketches = SketchFile(files.enter_context(tempfile.TemporaryFile(dir=work_dir)))
            self._files = files.pop_all()

    def __enter__(self) -> "NearIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Documents added."""
        return self._sketches.num_documents

    def close(self) -> None:
        self._files.close()

    def add(self, signatures: Signatures) -> None:
        """Append documents; they are numbered in the order in which they come."""
        if (signatures.threshold, signatures.seed) != (self._threshold, self._seed):
            raise ValueError(
                f"signatures for threshold {signatures.threshold} and seed {signatures.seed} in an index for "
                f"{self._threshold} and {self._seed}; sign with the index's own"
            )
        for band, file in enumerate(self._bands):
            file.write(np.ascontiguousarray(signatures.bands[:, band]).tobytes())
        self._sketches.add(signatures.sizes, signatures.sketch)

    def removed(self) -> Mapping[int, tuple[int, float]]:
        """Number of each document to remove -> (number of the kept one, similarity of the two)."""
        clusters = Clusters(self._sketches, self._threshold)
        for file in self._bands:
            for numbers, sizes in self._groups(file):
                clusters.join(numbers, sizes)
        return Removed(*clusters.resolve())

    def _groups(self, file: IO[bytes]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Documents that share a key, ascending within each group, and the sizes of the groups."""
        file.flush()
        parts = 1 + len(self) // KEYS_AT_ONCE
        for part in range(parts):
            keys, numbers = self._part(file, part, parts)
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            starts = (
                np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.zeros(0, np.int64)
            )
            sizes = np.diff(np.append(starts, len(keys)))
            shared = np.repeat(sizes > 1, sizes)
            yield numbers[order[shared]], sizes[sizes > 1]

    def _part(self, file: IO[bytes], part: int, parts: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        found_keys, found_numbers = [], []
        for start in range(0, len(self), KEYS_AT_ONCE):
            count = min(KEYS_AT_ONCE, len(self) - start)
            file.seek(8 * start)
            keys = np.frombuffer(file.read(8 * count), np.uint64)
            wanted = np.flatnonzero(
                (keys % np.uint64(parts) == part) & (self._sketches.sizes[start : start + count] > 0)
            )
            found_keys.append(keys[wanted])
            found_numbers.append(wanted + start)
        if not found_keys:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return np.concatenate(found_keys), np.concatenate(found_numbers)


def _lots(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start, held = 0, 0
    for end, text in enumerate(texts, start=1):
        held += len(text)
        if held >= CHARACTERS_AT_ONCE or end == len(texts):
            yield texts[start:end]
            start, held = end, 0


def _sign(texts: Sequence[str], threshold: float, seed: int) -> Signatures:
    sets = shingle_sets(texts, seed)
    rank = np.arange(len(sets.hashes)) - np.repeat(sets.starts, sets.sizes)
    return Signatures(
        threshold=threshold,
        seed=seed,
        bands=_band_keys(sets, threshold, seed),
        sizes=sets.sizes.astype(np.uint32),
        sketch=sets.hashes[rank < SKETCH_HASHES],
    )


def _band_keys(sets: ShingleSets, threshold: float, seed: int) -> NDArray[np.uint64]:
    num_bands, rows = banding(threshold)
    filled = np.flatnonzero(sets.sizes)
    keys = np.zeros((len(sets.sizes), num_bands), np.uint64)
    if not len(filled):
        return keys
    multipliers, row_factors = _multipliers(seed)
    starts = sets.starts[filled]
    work = np.empty_like(sets.hashes)
    for band in range(num_bands):
        key = np.zeros(len(filled), np.uint64)
        for row in range(rows):
            # x -> a * x modulo 2^32 with odd a permutes the hashes, which are random already
            np.multiply(sets.hashes, multipliers[band * rows + row], out=work)
            key += np.minimum.reduceat(work, starts) * row_factors[row]
        keys[filled, band] = mixed(key)
    return keys


@functools.lru_cache(maxsize=2)
def _multipliers(seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """Odd multipliers of the permutations, and of the rows of a band."""
    permutations = constants(seed, "permutation", NUM_HASHES) >> np.uint64(32) | np.uint64(1)
    return permutations.astype(np.uint32), constants(seed, "row", NUM_HASHES)
