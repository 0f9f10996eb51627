"""Spans of a token store read as one text: what training windows, packed rows and validation are cut from.

Addresses count all tokens of the store; the tokens of extra documents, such as canaries, follow after them. A source
gives windows of R rows by L tokens without saying where they lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.tokens.store import Tokens, TokenStore

COUNTED_TOKENS = 1 << 26  # frequencies of longer texts come from evenly spaced parts
_PART = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Spans:
    """Documents, or parts of documents, in the order in which they are read."""

    addresses: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.addresses)

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())


class TokenSource(Protocol):
    """Tokens that stand one after another."""

    def __len__(self) -> int: ...
    def windows(self, starts: NDArray[np.int64], length: int) -> Tokens:
        """(R, length) tokens from each start; past the end the last token is repeated."""
        ...


class ArrayTokens:
    """Tokens in memory."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def windows(self, starts: NDArray[np.int64], length: int) -> Tokens:
        index = starts[:, None] + np.arange(length)
        if len(starts) and int(starts.max()) + length > len(self.tokens):
            index = np.minimum(index, len(self.tokens) - 1)
        return self.tokens[index]


class TokenSpace:
    """Tokens by address: the shards of a store, and an array of extra documents behind them."""

    def __init__(self, store: TokenStore, extra: Tokens | None = None) -> None:
        self._store = store
        self.dtype = store.dtype
        extra = np.empty(0, dtype=store.dtype) if extra is None else extra
        self.extra_address = store.num_tokens
        self._arrays: tuple[Tokens, ...] = (*store.arrays, extra)
        self.bases = np.append(store.bases, store.num_tokens + len(extra))
        """Address of the first token of each array, and the end."""

    def with_extra(self, extra: Tokens) -> "TokenSpace":
        """The same store with other extra documents."""
        return TokenSpace(self._store, extra)

    def copy(
        self,
        addresses: NDArray[np.int64],
        lengths: NDArray[np.int64],
        out: Tokens,
        positions: NDArray[np.int64],
    ) -> None:
        """Put the tokens at each address at its position of the flat array `out`."""
        arrays = np.searchsorted(self.bases, addresses, side="right") - 1
        local = addresses - self.bases[arrays]
        for array, start, length, position in zip(
            arrays.tolist(), local.tolist(), lengths.tolist(), positions.tolist(), strict=True
        ):
            out[position : position + length] = self._arrays[array][start : start + length]


class SpanTokens:
    """Spans of a space, read as if they stood one after another; nothing is copied until it is asked for."""

    def __init__(self, space: TokenSpace, spans: Spans) -> None:
        self._space = space
        self._runs = _joined(spans, space.bases)
        self._starts = np.concatenate([[0], np.cumsum(self._runs.lengths)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def windows(self, starts: NDArray[np.int64], length: int) -> Tokens:
        out = np.empty((len(starts), length), dtype=self._space.dtype)
        ends = np.minimum(starts + length, len(self))
        first = np.searchsorted(self._starts, starts, side="right") - 1
        last = np.searchsorted(self._starts, ends, side="left")
        counts = last - first  # runs that each window touches
        window = np.repeat(np.arange(len(starts)), counts)
        run = np.arange(len(window)) - np.repeat(np.cumsum(counts) - counts, counts) + first[window]
        begin = np.maximum(self._starts[run], starts[window])
        end = np.minimum(self._starts[run + 1], ends[window])
        addresses = self._runs.addresses[run] + begin - self._starts[run]
        self._space.copy(addresses, end - begin, out.reshape(-1), window * length + begin - starts[window])
        for row in np.flatnonzero(ends - starts < length):
            known = int(ends[row] - starts[row])
            out[row, known:] = out[row, known - 1]
        return out

    def to_array(self) -> Tokens:
        """All of it, in memory."""
        out = np.empty(len(self), dtype=self._space.dtype)
        self._space.copy(self._runs.addresses, self._runs.lengths, out, self._starts[:-1])
        return out


def concatenated(documents: Sequence[Sequence[int]], dtype: np.dtype) -> tuple[Tokens, NDArray[np.int64]]:
    """Token documents in one array, and the length of each."""
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    tokens = np.empty(int(lengths.sum()), dtype=dtype)
    end = 0
    for document in documents:
        start, end = end, end + len(document)
        tokens[start:end] = document
    return tokens, lengths


def token_counts(source: TokenSource, vocab_size: int) -> NDArray[np.int64]:
    """How often each id stands in the source, or in evenly spaced parts of a very long one."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    starts = np.arange(0, len(source), _PART)
    most = COUNTED_TOKENS // _PART
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
    for start in starts.tolist():
        length = min(_PART, len(source) - start)
        part = source.windows(np.array([start]), length)[0]
        counts += np.bincount(part, minlength=vocab_size)
    return counts


def _joined(spans: Spans, bases: NDArray[np.int64]) -> Spans:
    """The same tokens in as few spans as can be; a span stays inside one array."""
    kept = spans.lengths > 0
    addresses, lengths = spans.addresses[kept], spans.lengths[kept]
    if not len(addresses):
        return Spans(addresses=addresses, lengths=lengths)
    begins = np.ones(len(addresses), dtype=np.bool_)
    begins[1:] = (addresses[1:] != addresses[:-1] + lengths[:-1]) | np.isin(addresses[1:], bases)
    first = np.flatnonzero(begins)
    return Spans(addresses=addresses[first], lengths=np.add.reduceat(lengths, first))
