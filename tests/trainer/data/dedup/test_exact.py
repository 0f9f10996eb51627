"""Exact duplicates: what counts as equal, and the index."""

import hashlib

import pytest
from picochat_trainer.data.dedup.exact import DIGEST_BYTES, ExactIndex, fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a b", " a\n\n b\t"),
        ("a b", "a\u00a0b"),
        ("a b", "a\u3000 \u2009b"),
        ("a\nb", "a\r\nb"),
        ("a\nb", "a\fb"),
        ("caf\u00e9", "cafe\u0301"),
        ("", " \n"),
    ],
)
def test_white_space_and_composition_do_not_count(one: str, other: str) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "ab"), ("c a t", "cat"), ("A", "a"), ("a.", "a"), ("a", "a\u200b")]
)
def test_case_punctuation_and_the_presence_of_space_count(one: str, other: str) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_fingerprint_is_that_of_the_text_with_single_spaces() -> None:
    text = "One  line\n\n  and\tanother\r\n with   spaces \n" * 50
    expected = hashlib.sha256(" ".join(text.split()).encode()).digest()[:DIGEST_BYTES]
    assert fingerprint(text) == expected


def test_fingerprint_takes_lone_surrogates() -> None:
    assert fingerprint("\ud800") != fingerprint("\udc00")


def test_index_names_the_first_document_with_the_digest() -> None:
    index = ExactIndex()
    digests = [fingerprint(text) for text in ("a", "b", "a", "c", "b", "a")]
    assert [index.add(digest) for digest in digests] == [None, None, 0, None, 1, 0]
    assert len(index) == 6


def test_index_answers_as_a_dict_does_while_it_grows() -> None:
    index, expected = ExactIndex(), dict[bytes, int]()
    for number in range(40_000):
        digest = hashlib.blake2b(str(number * 7919 % 30_011).encode(), digest_size=DIGEST_BYTES).digest()
        assert index.add(digest) == expected.get(digest)
        expected.setdefault(digest, number)
    assert index.size_bytes < 60 * len(expected)
