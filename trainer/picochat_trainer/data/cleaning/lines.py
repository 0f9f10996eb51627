"""Lines of documents: runs of equal ones, lines that many documents share, and 64-bit digests to count them by."""

import operator
from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice, pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

LONG_LINE_BYTES: Final = 2_048
"""Longer lines are hashed one by one: a step of the vectorised hash costs the same for one line as for thousands."""
_MULTIPLIER: Final = np.uint64(0x9E37_79B9_7F4A_7C15)
_SHIFT: Final = np.uint64(29)


def without_runs(text: str) -> tuple[str, int]:
    """`text` with one of each run of equal lines that are not blank, and how many lines went."""
    lines = text.split("\n")
    if not any(map(operator.eq, lines, islice(lines, 1, None))):
        return text, 0
    kept = lines[:1] + [
        line for earlier, line in pairwise(lines) if line != earlier or not line or line.isspace()
    ]
    return "\n".join(kept), len(lines) - len(kept)


def without_lines(texts: Sequence[str], frequent: NDArray[np.uint64]) -> tuple[list[str], list[int]]:
    """`texts` without the lines whose digests are in the sorted array `frequent`, and how many went from each."""
    split = [text.split("\n") for text in texts]
    digests = line_digests([line.strip() for lines in split for line in lines])
    places = np.minimum(np.searchsorted(frequent, digests), max(len(frequent) - 1, 0))
    keep = (frequent[places] != digests if len(frequent) else np.ones(len(digests), bool)).tolist()
    results, removed, start = [], [], 0
    for lines in split:
        kept = [
            line
            for line, stays in zip(lines, islice(keep, start, None), strict=False)
            if stays or not line.strip()
        ]
        start += len(lines)
        results.append("\n".join(kept))
        removed.append(len(lines) - len(kept))
    return results, removed


def filled_lines(text: str) -> list[str]:
    """The lines that are not blank, without the space around them."""
    return [line for raw in text.split("\n") if (line := raw.strip())]


def line_digests(lines: Sequence[str]) -> NDArray[np.uint64]:
    """A 64-bit digest per line, equal in every process. Eight bytes of all lines are mixed in at a time."""
    data = "\n".join(lines).encode() + b"\n"
    buffer = np.frombuffer(data + bytes(8), np.uint8)
    if not lines:
        return np.empty(0, np.uint64)
    ends = np.flatnonzero(buffer[: len(data)] == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts
    digests = _digests_of_short_lines(buffer, starts, np.where(lengths > LONG_LINE_BYTES, 0, lengths))
    for index in np.flatnonzero(lengths > LONG_LINE_BYTES).tolist():
        line = data[starts[index] : ends[index]]
        digests[index] = int.from_bytes(blake2b(line, digest_size=8).digest(), "little")
    return digests


def _digests_of_short_lines(
    buffer: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.uint64]:
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    words = np.ndarray((len(buffer) - 7,), "<u8", buffer, strides=(1,))  # the 8 bytes from every place on
    mixed = lengths.astype(np.uint64) * _MULTIPLIER
    num_words = -(-lengths // 8)
    for word in range(int(num_words[0])):
        active = int(
            np.searchsorted(-num_words, -word)
        )  # lines are sorted by length, so these are the first ones
        value = words[starts[:active] + 8 * word]
        num_bytes = np.minimum(lengths[:active] - 8 * word, 8)
        value &= np.uint64(0xFFFF_FFFF_FFFF_FFFF) >> (np.uint64(8) * (8 - num_bytes).astype(np.uint64))
        mixed[:active] = (mixed[:active] ^ value) * _MULTIPLIER
        mixed[:active] ^= mixed[:active] >> _SHIFT
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MULTIPLIER
    digests = np.empty(len(mixed), np.uint64)
    digests[order] = mixed ^ (mixed >> _SHIFT)
    return digests
