"""Plans rows of a fixed length out of documents, from their lengths alone, so that hardly any of a row is padding.

A document longer than a row is split first: full rows, then a tail, each piece beginning with the last token of the
one before, so that every token is a target once. What is shorter than a row is packed best-fit decreasing, over the
counts of each length instead of piece by piece (the histogram packing of Krell et al., arXiv 2107.02027). Cropping
documents to fill rows instead would throw most of a corpus of long documents away.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.atomic import new_folder
from picochat_trainer.training.tokens import Spans

_ADDRESSES: Final = "addresses.npy"
_LENGTHS: Final = "lengths.npy"
_FIRSTS: Final = "firsts.npy"
_COUNTS: Final = "counts.npy"
_STREAM = 11  # of the random numbers that mix documents of equal length


@dataclass(frozen=True, kw_only=True)
class PackedRows:
    """A plan: row r is pieces `firsts[r]` to `firsts[r + 1]`, one after another from the left."""

    row_len: int
    pieces: Spans
    """In the order of the rows."""
    firsts: NDArray[np.int64]
    """int64 (num_rows + 1)."""
    num_documents: int
    """Documents that stand in a row: all that were given, but for a lone one without text."""
    num_tokens: int
    """Their tokens."""

    def __len__(self) -> int:
        return len(self.firsts) - 1

    @property
    def num_targets(self) -> NDArray[np.int64]:
        """Targets of each row: its tokens but the first."""
        return np.add.reduceat(self.pieces.lengths, self.firsts[:-1]) - 1

    @property
    def used_tokens(self) -> int:
        """Of the given tokens, those that stand in a row."""
        return self.pieces.num_tokens - (len(self.pieces) - self.num_documents)  # a continuation repeats one

    @property
    def filled_fraction(self) -> float:
        """Share of the rows' places that hold a token; the rest is padding."""
        return self.pieces.num_tokens / max(len(self) * self.row_len, 1)


def pack(documents: Spans, row_len: int, seed: int) -> PackedRows:
    """Plan rows of `row_len` tokens; equal documents, length and seed give equal rows."""
    pieces = split_long(documents, row_len)
    rng = np.random.default_rng([seed, _STREAM])
    # Random order within a length: which documents share a row does not follow from where they stand in the corpus.
    order = rng.permutation(len(pieces))
    shortness = (row_len - pieces.lengths[order]).astype(np.uint16 if row_len <= 1 << 16 else np.int64)
    order = order[np.argsort(shortness, kind="stable")]  # a radix sort where they are 16 bits
    counts = np.bincount(pieces.lengths, minlength=row_len + 1)
    rows = _rows_of_sorted(counts, row_len)
    by_row = np.argsort(rows, kind="stable")
    chosen = order[by_row]
    firsts = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    # The shortest come last: only the last row may hold a single token, which is nobody's target.
    lone = int(len(chosen) > 0 and firsts[-1] - firsts[-2] == 1 and pieces.lengths[chosen[-1]] == 1)
    chosen, firsts = chosen[: len(chosen) - lone], firsts[: len(firsts) - lone]
    return PackedRows(
        row_len=row_len,
        pieces=Spans(addresses=pieces.addresses[chosen], lengths=pieces.lengths[chosen]),
        firsts=firsts,
        num_documents=len(documents) - lone,
        num_tokens=documents.num_tokens,
    )


def save_plan(plan: PackedRows, folder: Path) -> None:
    """Write a plan for other processes."""
    with new_folder(folder) as new:
        np.save(new / _ADDRESSES, plan.pieces.addresses)
        np.save(new / _LENGTHS, plan.pieces.lengths)
        np.save(new / _FIRSTS, plan.firsts)
        np.save(
            new / _COUNTS, np.asarray([plan.row_len, plan.num_documents, plan.num_tokens], dtype=np.int64)
        )


def load_plan(folder: Path) -> PackedRows:
    """What `save_plan` wrote, mapped: processes of one machine share it in memory."""
    row_len, num_documents, num_tokens = (int(count) for count in np.load(folder / _COUNTS))
    return PackedRows(
        row_len=row_len,
        pieces=Spans(
            addresses=np.load(folder / _ADDRESSES, mmap_mode="r"),
            lengths=np.load(folder / _LENGTHS, mmap_mode="r"),
        ),
        firsts=np.load(folder / _FIRSTS, mmap_mode="r"),
        num_documents=num_documents,
        num_tokens=num_tokens,
    )


def split_long(documents: Spans, row_len: int) -> Spans:
    """Cut documents into pieces of at most `row_len` tokens, which overlap by one; single tokens stay whole."""
    stride = row_len - 1
    lengths = documents.lengths
    counts = np.maximum(1, -(-(lengths - 1) // stride))
    total = int(counts.sum())
    if total == len(lengths):
        return documents
    place = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    offset = place * stride
    return Spans(
        addresses=np.repeat(documents.addresses, counts) + offset,
        lengths=np.minimum(np.repeat(lengths, counts) - offset, row_len),
    )


def _rows_of_sorted(counts: NDArray[np.int64], row_len: int) -> NDArray[np.int64]:
    """The row of each piece, for pieces sorted by falling length of which `counts` tells how many there are.

    Best-fit decreasing: each piece goes where the least room would be left, or into a new row.
    """
    rows = np.empty(int(counts.sum()), dtype=np.int64)
    room: defaultdict[int, list[NDArray[np.int64]]] = defaultdict(list)  # rows by tokens of room
    rooms: list[int] = []  # keys of `room`, rising
    num_rows = done = 0

    def leave(left: int, which: NDArray[np.int64]) -> None:
        if left > 0 and len(which):
            if not room[left]:
                insort(rooms, left)
            room[left].append(which)

    for size in range(row_len, 0, -1):
        count = int(counts[size]) if size < len(counts) else 0
        while count:
            at = bisect_left(rooms, size)
            if at == len(rooms):
                fresh = np.arange(num_rows, num_rows + -(-count // (row_len // size)))
                num_rows += len(fresh)
                leave(row_len, fresh)
                continue
            free = rooms.pop(at)
            open_rows = np.concatenate(room.pop(free))
            each = min(free // size, count)
            full = min(len(open_rows), count // each)
            rows[done : done + full * each] = np.tile(open_rows[:full], each)
            done += full * each
            leave(free - each * size, open_rows[:full])
            leave(free, open_rows[full:])
            count -= full * each
    return rows
