"""Which spans of a text a model is asked to continue: training spans by how often they occur, and held-out ones.

A span is a window inside one document, half of it prompt. Spans of one sample do not overlap, so that they are about as
independent as text allows.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.memorization.occurrences import Occurrences, WindowHashes, count_windows
from picochat_trainer.tokens.store import Tokens
from picochat_trainer.training.split import Split
from picochat_trainer.training.tokens import Spans, SpanTokens

STRATA: Final[tuple[tuple[int, int | None], ...]] = ((1, 1), (2, 4), (5, 16), (17, 64), (65, None))
SPAN_LENGTHS: Final = (100, 80, 64, 48, 32, 24, 16)
"""Tokens. The first is that of Carlini et al. (2023), 50 + 50; shorter ones are for short contexts and little text."""
MIN_SPANS: Final = 100
"""Fewer of a side, and shorter spans are taken instead."""


@dataclass(frozen=True, kw_only=True)
class SpanSample:
    """N spans of one length with equal standing."""

    name: str
    """`1`, `2-4`, ..., `65+`: how often they occur in the training tokens; `held out`."""
    tokens: Tokens
    """(N, length)."""
    counts: NDArray[np.int64]
    """(N), copies on their own side of the split, of the tokens that were counted."""
    documents: NDArray[np.int64]
    """(N), which span of the side of the split each lies in."""
    num_found: int
    """Different windows of this standing in the counted sample, before any were chosen."""

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class SpanSamples:
    """What is asked of a model, and how it was found."""

    length: int
    strata: tuple[SpanSample, ...]
    heldout: SpanSample
    num_counted: int
    """Training tokens in which occurrences were counted."""
    num_train: int
    sampled_fraction: float
    """Share of all different windows whose occurrences were counted."""

    @property
    def prefix(self) -> int:
        """Tokens that are given; the rest is to be continued."""
        return self.length // 2

    @property
    def num_spans(self) -> int:
        return sum(map(len, self.strata)) + len(self.heldout)


def sample_spans(
    split: Split, *, sequence_len: int, vocab_size: int, num_spans: int, seed: int
) -> SpanSamples:
    """Up to `num_spans` of each stratum of the training side, and of the held-out side.

    They have the first length of `SPAN_LENGTHS` that fits the context and gives at least `MIN_SPANS` of both sides.
    """
    *lengths, shortest = span_lengths(split, sequence_len)
    for length in lengths:
        samples = _samples(split, WindowHashes(length, vocab_size, seed), num_spans)
        if min(len(samples.strata[0]), len(samples.heldout)) >= min(MIN_SPANS, num_spans):
            return samples
    return _samples(split, WindowHashes(shortest, vocab_size, seed), num_spans)


def span_lengths(split: Split, sequence_len: int) -> list[int]:
    """Lengths worth trying: those that fit the context and have places enough, and the shortest."""
    fitting = [length for length in SPAN_LENGTHS if length <= sequence_len] or [sequence_len]
    sides = split.corpus_train, split.val
    return [
        length
        for length in fitting
        if length == fitting[-1] or min(int((side.lengths // length).sum()) for side in sides) >= MIN_SPANS
    ]


def _samples(split: Split, hashing: WindowHashes, num_spans: int) -> SpanSamples:
    train_tokens = SpanTokens(split.space, split.corpus_train)
    val_tokens = SpanTokens(split.space, split.val)
    train = count_windows(train_tokens, split.corpus_train, hashing)
    unseen = count_windows(val_tokens, split.val, hashing).without(train)
    length = hashing.length
    return SpanSamples(
        length=length,
        strata=tuple(
            _chosen(
                _named(low, high),
                train.occurring(low, high),
                train_tokens,
                split.corpus_train,
                length,
                num_spans,
            )
            for low, high in STRATA
        ),
        heldout=_chosen("held out", unseen, val_tokens, split.val, length, num_spans),
        num_counted=train.num_counted,
        num_train=len(train_tokens),
        sampled_fraction=(int(train.limit) + 1) / 2**64,
    )


def _named(low: int, high: int | None) -> str:
    return f"{low}+" if high is None else str(low) if low == high else f"{low}-{high}"


def _chosen(
    name: str, found: Occurrences, text: SpanTokens, spans: Spans, length: int, num_spans: int
) -> SpanSample:
    """The first windows in the order of their hashes that do not overlap one chosen before."""
    places: list[int] = []
    chosen: list[int] = []
    for index, position in enumerate(found.positions.tolist()):
        if len(chosen) == num_spans:
            break
        at = bisect_left(places, position)
        if places[at - 1 : at] and position - places[at - 1] < length:
            continue
        if at < len(places) and places[at] - position < length:
            continue
        insort(places, position)
        chosen.append(index)
    positions = found.positions[chosen]
    return SpanSample(
        name=name,
        tokens=text.windows(positions, length),
        counts=found.counts[chosen],
        documents=np.searchsorted(np.cumsum(spans.lengths), positions, side="right"),
        num_found=len(found.positions),
    )
