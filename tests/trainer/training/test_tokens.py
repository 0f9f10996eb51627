from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from picochat_trainer.training import tokens as tokens_module
from picochat_trainer.training.tokens import (
    ArrayTokens,
    Spans,
    SpanTokens,
    TokenSpace,
    concatenated,
    token_counts,
)

MakeTokens = Callable[[Path, list[str]], TokenStore]
DOCUMENTS = [f"{i}" + "abcdefg"[i % 7] * (3 + i) for i in range(40)]


@pytest.fixture
def store(tmp_path: Path, make_tokens: MakeTokens) -> TokenStore:
    """Several shards, so that spans lie in different files."""
    make_tokens(tmp_path, DOCUMENTS)
    corpus, tokenizer = CorpusStore.at(tmp_path), Tokenizer.load(tmp_path)
    return build_token_store(corpus, tokenizer, tmp_path / "tokens", shard_tokens=200).store


def spans_of(store: TokenStore, documents: list[int]) -> Spans:
    lengths = np.diff(store.offsets)
    return Spans(addresses=store.offsets[documents], lengths=lengths[documents])


def test_windows_read_on_over_documents_gaps_shards_and_extras(store: TokenStore) -> None:
    assert len(store.shards) > 3
    extra, extra_lengths = concatenated([[0, 7, 8], [0, 9]], store.dtype)
    space = TokenSpace(store, extra)
    picked = spans_of(store, [0, 1, 2, 5, 6, 9, 30, 31, 3])
    spans = Spans(
        addresses=np.concatenate([picked.addresses, store.num_tokens + np.array([0, 3])]),
        lengths=np.concatenate([picked.lengths, extra_lengths]),
    )
    expected = np.concatenate(
        [store.document(i) for i in (0, 1, 2, 5, 6, 9, 30, 31, 3)] + [np.array([0, 7, 8, 0, 9])]
    )
    source = SpanTokens(space, spans)
    assert np.array_equal(source.to_array(), expected)
    starts = np.arange(len(expected))
    assert np.array_equal(source.windows(starts, 11), ArrayTokens(expected).windows(starts, 11))


def test_past_the_end_the_last_token_is_repeated() -> None:
    assert ArrayTokens(np.array([1, 2, 3])).windows(np.array([1, 2]), 3).tolist() == [[2, 3, 3], [3, 3, 3]]


def test_counts_are_exact_until_a_text_is_very_long(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SpanTokens(TokenSpace(store, np.empty(0, store.dtype)), spans_of(store, list(range(40))))
    assert np.array_equal(token_counts(source, 260), np.bincount(source.to_array(), minlength=260))
    monkeypatch.setattr(tokens_module, "_PART", 10)
    monkeypatch.setattr(tokens_module, "COUNTED_TOKENS", 50)
    assert token_counts(source, 260).sum() == 50
