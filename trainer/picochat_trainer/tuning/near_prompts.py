"""Prompts that are nearly an earlier one, in time linear in their number.

MinHash over words and word pairs finds candidates, an edit ratio decides. Prompts with other numbers ask something
else and are no near duplicates. A bucket keeps few prompts, so a template of a hundred thousand rows costs no more
per row than a small one; the small buckets of a row, those of its rare words, are looked at first.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz
from rensa import RMinHash

NEAR: Final = 0.90
"""Ratio of equal characters, in order, from which two prompts are near duplicates."""
NUM_BANDS: Final = 24
BAND_ROWS: Final = (
    2  # finds pairs with Jaccard .4 in 99 of 100 cases, .6 always: the ratio is the stricter test
)
MAX_BUCKET: Final = 16
MAX_COMPARED: Final = 32
BLOCK: Final = 8_192  # prompts signed at once
_DIGITS: Final = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class NearPrompt:
    """Prompt `index` is nearly prompt `earlier`."""

    index: int
    earlier: int
    similarity: float


def near_prompts(prompts: Sequence[str], *, threshold: float = NEAR) -> list[NearPrompt]:
    """Those of `prompts` (different texts in normal form) that are nearly an earlier one that is not itself listed."""
    if not prompts:
        return []
    groups = _shared_buckets(np.concatenate([_band_keys(block) for block in _blocks(prompts)]))
    members: list[list[int]] = [[] for _ in range(groups.max() + 1)]
    numbers = [tuple(_DIGITS.findall(prompt)) for prompt in prompts]
    found: list[NearPrompt] = []
    for index, row in enumerate(groups):
        own = [members[group] for group in row[row >= 0].tolist()]
        near = _nearest(index, own, prompts, numbers, threshold)
        if near is not None:
            found.append(near)
            continue
        for bucket in own:
            if len(bucket) < MAX_BUCKET:
                bucket.append(index)
    return found


def _blocks(prompts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (prompts[start : start + BLOCK] for start in range(0, len(prompts), BLOCK))


def _shared_buckets(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(prompts, NUM_BANDS): number of each band's bucket, -1 where no other prompt is in it."""
    numbers = np.empty(keys.shape, dtype=np.int64)
    start = 0
    for band in range(keys.shape[1]):
        _, inverse, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        renumbered = np.where(counts > 1, start + np.cumsum(counts > 1) - 1, -1)
        numbers[:, band] = renumbered[inverse]
        start += int((counts > 1).sum())
    return numbers


def _nearest(
    index: int,
    own: Sequence[list[int]],
    prompts: Sequence[str],
    numbers: Sequence[tuple[str, ...]],
    threshold: float,
) -> NearPrompt | None:
    candidates = dict.fromkeys(member for members in sorted(own, key=len) for member in members)
    prompt, compared = prompts[index], 0
    for other in candidates:
        if numbers[other] != numbers[index]:
            continue
        ratio = fuzz.ratio(prompt, prompts[other], score_cutoff=100 * threshold)
        if ratio:
            return NearPrompt(index=index, earlier=other, similarity=round(ratio / 100, 4))
        compared += 1
        if compared == MAX_COMPARED:
            break
    return None


def _band_keys(prompts: Sequence[str]) -> NDArray[np.uint64]:
    """(prompts, NUM_BANDS)"""
    shingles = []
    for prompt in prompts:
        words = prompt.split()
        shingles.append([*words, *map(" ".join, pairwise(words))] or [prompt])
    matrix = RMinHash.digest_matrix_from_token_sets(shingles, NUM_BANDS * BAND_ROWS, 1)
    hashes = np.asarray(matrix.to_rows(), dtype=np.uint64).reshape(len(prompts), NUM_BANDS, BAND_ROWS)
    return (hashes[:, :, 0] << np.uint64(32)) | hashes[:, :, 1]
