"""Overlap measures on small cases that can be counted by hand."""

import pytest
from picochat_trainer.scoring.overlap import (
    corpus_support,
    repeated_share,
    rouge_l,
    token_f1,
    unique_word_share,
)


def test_token_f1_counts_bags_of_words() -> None:
    assert token_f1("a b b", "b c") == pytest.approx(2 * 1 / 5)
    assert (token_f1("", "x"), token_f1("x y", "y x")) == (0.0, 1.0)


def test_rouge_l_keeps_order_and_pays_nothing_for_length() -> None:
    assert rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)
    assert rouge_l("b a", "a b") == pytest.approx(0.5)
    assert rouge_l("a b " + "junk " * 50, "a b") < 0.1


def test_repetition_counts_three_word_runs() -> None:
    assert repeated_share("a b c a b c") == pytest.approx(1 / 4)
    assert repeated_share("a b") == 0.0
    assert unique_word_share("a a b b") == 0.5


def test_corpus_support_needs_runs_not_vocabulary() -> None:
    corpus = ["The gate decides\nabout a release.\n", "another document"]
    replies = ["The gate decides about a release", "release a about decides gate the", "gate", ""]
    assert corpus_support(replies, corpus) == [1.0, 0.0, 1.0, None]


def test_a_run_across_two_documents_is_no_support() -> None:
    assert corpus_support(["one two three"], ["one two", "three"]) == [0.0]
