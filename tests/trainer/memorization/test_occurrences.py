"""Counts are those of a plain dictionary, for every window that is kept, in as little memory as is allowed."""

from collections import Counter

import numpy as np
import pytest
from picochat_trainer.memorization import occurrences
from picochat_trainer.memorization.occurrences import Occurrences, WindowHashes, count_windows
from picochat_trainer.training.tokens import Spans, SpanTokens, TokenSpace

VOCAB = 50


class _Store:
    """As much of a token store as a space of tokens needs."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.dtype, self.num_tokens = tokens.dtype, len(tokens)
        self.arrays, self.bases = (tokens,), np.array([0, len(tokens)])


def text_of(documents: list[np.ndarray]) -> tuple[SpanTokens, Spans]:
    lengths = np.array([len(document) for document in documents])
    spans = Spans(addresses=np.cumsum(lengths) - lengths, lengths=lengths)
    space = TokenSpace(_Store(np.concatenate(documents)))  # type: ignore[arg-type]
    return SpanTokens(space, spans), spans


def some_documents(seed: int, vocab: int = 3) -> list[np.ndarray]:
    """Short ones and empty ones too, in a small vocabulary, so that windows repeat."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, vocab, size=size, dtype=np.uint16) for size in (*rng.integers(0, 60, size=40), 0, 1)
    ]


def plain_counts(documents: list[np.ndarray], length: int) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(document[i : i + length].tolist())
        for document in documents
        for i in range(len(document) - length + 1)
    )


def found_counts(found: Occurrences, text: SpanTokens, length: int) -> dict[tuple[int, ...], int]:
    windows = text.windows(found.positions, length)
    return {
        tuple(window): count for window, count in zip(windows.tolist(), found.counts.tolist(), strict=True)
    }


@pytest.mark.parametrize("length", [1, 4, 7, 50])
@pytest.mark.parametrize("block", [16, 64, 1 << 20])
def test_all_windows_inside_documents_are_counted(
    monkeypatch: pytest.MonkeyPatch, length: int, block: int
) -> None:
    monkeypatch.setattr(occurrences, "_BLOCK", block)
    documents = some_documents(length)
    text, spans = text_of(documents)
    found = count_windows(text, spans, WindowHashes(length, VOCAB, 1))
    assert found_counts(found, text, length) == plain_counts(documents, length)
    assert found.num_counted == len(text)


def test_a_full_sample_keeps_exact_counts_of_fewer_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occurrences, "_BLOCK", 64)
    documents = some_documents(1, vocab=4)
    text, spans = text_of(documents)
    whole = plain_counts(documents, 4)
    found = count_windows(text, spans, WindowHashes(4, VOCAB, 1), max_windows=20)
    kept = found_counts(found, text, 4)
    assert len(kept) == 20 < len(whole)
    assert kept == {window: whole[window] for window in kept}
    assert np.all(np.diff(found.hashes.astype(object)) > 0) and found.hashes[-1] < found.limit


def test_each_window_is_as_likely_to_be_kept_however_often_it_occurs() -> None:
    common, rare = np.zeros(4, np.uint16), np.arange(1, 5, dtype=np.uint16)
    text, spans = text_of([*[common] * 99, rare])
    first = [
        count_windows(text, spans, WindowHashes(4, VOCAB, seed), max_windows=1).counts[0]
        for seed in range(40)
    ]
    assert 8 < sum(count == 1 for count in first) < 32


def test_of_a_very_long_text_evenly_spaced_blocks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occurrences, "_BLOCK", 64)
    text, spans = text_of([np.arange(1_024, dtype=np.uint16) % VOCAB])
    found = count_windows(text, spans, WindowHashes(4, VOCAB, 1), max_counted=256)
    assert found.num_counted == 256
    assert found.counts.sum() == 4 * 64 - 3  # the last block ends with the text


def test_windows_of_one_text_that_are_in_the_other_are_told() -> None:
    here, there = np.array([1, 2, 3, 4, 5, 6], np.uint16), np.array([9, 3, 4, 5, 9], np.uint16)
    hashing = WindowHashes(3, VOCAB, 1)
    mine, spans = text_of([here])
    other, other_spans = text_of([there])
    unseen = count_windows(mine, spans, hashing).without(count_windows(other, other_spans, hashing))
    assert set(found_counts(unseen, mine, 3)) == {(1, 2, 3), (2, 3, 4), (4, 5, 6)}


def test_where_the_other_text_was_only_sampled_nothing_is_said_of_the_rest() -> None:
    documents = some_documents(2, vocab=4)
    text, spans = text_of(documents)
    hashing = WindowHashes(4, VOCAB, 1)
    sampled = count_windows(text, spans, hashing, max_windows=5)
    assert not len(count_windows(text, spans, hashing).without(sampled).hashes)


def test_a_text_shorter_than_a_window_has_none() -> None:
    text, spans = text_of([np.arange(3, dtype=np.uint16)])
    assert not len(count_windows(text, spans, WindowHashes(4, VOCAB, 1)).hashes)
