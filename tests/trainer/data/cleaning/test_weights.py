"""Copies by weight: right on average, the same for the same text."""

import pytest
from picochat_contract.canonical import sha256_hex
from picochat_trainer.data.cleaning.weights import num_copies

DIGESTS = [sha256_hex(f"text {number}") for number in range(4_000)]


@pytest.mark.parametrize("weight", [1, 2, 100])
def test_a_whole_weight_is_the_number_of_copies(weight: int) -> None:
    assert {num_copies(digest, weight) for digest in DIGESTS[:50]} == {weight}


@pytest.mark.parametrize("weight", [0.1, 0.5, 2.25])
def test_a_fraction_is_drawn_by_the_text(weight: float) -> None:
    copies = [num_copies(digest, weight) for digest in DIGESTS]
    assert sum(copies) / len(copies) == pytest.approx(weight, abs=0.03)
    assert copies == [num_copies(digest, weight) for digest in DIGESTS]
