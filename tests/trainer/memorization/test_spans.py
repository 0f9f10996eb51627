"""Spans to ask for are chosen by how often they occur, inside documents, without overlap, from both sides."""

from collections.abc import Callable

import numpy as np
import pytest
from picochat_trainer.memorization.spans import MIN_SPANS, SpanSamples, sample_spans, span_lengths
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.split import Split, split_store

MakeStore = Callable[[list[str]], TokenStore]
Words = Callable[[int, int], str]

REPEATED = (1, 3, 10, 30, 100)


@pytest.fixture
def split(make_store: MakeStore, words: Words) -> Split:
    """Documents that hold 200 characters of their own and one of five texts, at different frequencies."""
    shared = [words(1_000 + times, 200).upper() for times in REPEATED for _ in range(times)]
    documents = [words(i, 300) + text + words(5_000 + i, 300) for i, text in enumerate(shared)]
    return split_store(make_store(documents), val_fraction=0.2, mode="document", seed=3)


def sampled(split: Split, num_spans: int = 400, sequence_len: int = 256) -> SpanSamples:
    return sample_spans(split, sequence_len=sequence_len, vocab_size=512, num_spans=num_spans, seed=1)


def test_spans_stand_in_the_stratum_of_their_copies(split: Split, tokenizer: Tokenizer) -> None:
    samples = sampled(split)
    text = tokenizer.decode(split.train_tokens.to_array().tolist())
    assert [len(stratum) > 0 for stratum in samples.strata] == [True] * 5
    for stratum, (low, high) in zip(
        samples.strata, [(1, 1), (2, 4), (5, 16), (17, 64), (65, 999)], strict=True
    ):
        for tokens, count in zip(stratum.tokens, stratum.counts.tolist(), strict=True):
            assert text.count(tokenizer.decode(tokens.tolist())) == count
            assert low <= count <= high


def test_held_out_spans_occur_nowhere_in_the_training_text(split: Split, tokenizer: Tokenizer) -> None:
    samples = sampled(split)
    trained = tokenizer.decode(split.train_tokens.to_array().tolist())
    held_out = tokenizer.decode(split.val_tokens.to_array().tolist())
    assert len(samples.heldout) >= MIN_SPANS
    for tokens in samples.heldout.tokens:
        span = tokenizer.decode(tokens.tolist())
        assert span in held_out and span not in trained


def test_spans_of_a_sample_do_not_overlap_and_lie_in_the_named_document(
    split: Split, tokenizer: Tokenizer
) -> None:
    once = sampled(split).strata[0]
    text = tokenizer.decode(split.train_tokens.to_array().tolist())
    starts = sorted(text.index(tokenizer.decode(tokens.tolist())) for tokens in once.tokens)
    assert min(np.diff(starts)) >= sampled(split).length - 1  # BOS is a token without text
    ends = np.cumsum(split.corpus_train.lengths)
    whole = split.train_tokens.to_array()
    for tokens, document in zip(once.tokens[:20], once.documents[:20].tolist(), strict=True):
        own = whole[ends[document] - split.corpus_train.lengths[document] : ends[document]].tobytes()
        assert tokens.tobytes() in own


def test_the_sample_follows_from_the_seed_and_has_the_size_asked_for(split: Split) -> None:
    first, second = sampled(split, num_spans=30), sampled(split, num_spans=30)
    assert len(first.strata[0]) == len(first.heldout) == 30
    assert np.array_equal(first.strata[0].tokens, second.strata[0].tokens)
    larger = sampled(split, num_spans=60)
    assert np.array_equal(larger.strata[0].tokens[:30], first.strata[0].tokens)


def test_short_contexts_and_little_text_get_shorter_spans(split: Split, make_store: MakeStore) -> None:
    assert span_lengths(split, 256)[0] == 100
    assert span_lengths(split, 64)[0] == 64
    assert span_lengths(split, 8) == [8]
    little = split_store(make_store(["a bc" * 10, "xyz " * 10]), val_fraction=0.5, mode="document", seed=1)
    samples = sampled(little)
    assert samples.length == 16 and samples.prefix == 8


def test_in_window_mode_both_ends_of_a_document_are_asked_for(make_store: MakeStore, words: Words) -> None:
    store = make_store([words(i, 2_000) for i in range(10)])
    samples = sampled(split_store(store, val_fraction=0.5, mode="window", seed=1), num_spans=100)
    assert len(samples.strata[0]) >= 50 and len(samples.heldout) >= 50
