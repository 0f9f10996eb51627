"""Shingle hashes against a plain reading of the definition, with the words of the normal form."""

import random

import numpy as np
import pytest
from picochat_trainer.data.dedup import shingles
from picochat_trainer.data.dedup.shingles import ShingleSets, shingle_sets
from picochat_trainer.data.normalize import words

TEXTS = (
    "The quick brown fox jumps over the lazy dog, twice a day.",
    "don't -- e-mail me@example.org at 3.5 or 12 + 3 = 15, 7*8<60",
    "12 + 3\n4 - 5 / x - 2",
    "\u0421\u0442\u0440\u0430\u0441\u0441\u0435 Stra\u00dfe STRASSE \ufb01ne \u2460 cafe\u0301",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c12\u6708 ok \u3053\u3093\u306b\u3061\u306f\u4e16\u754c",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0434\u0430\u200b\u0440 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 snake_case \u00d7 3\u00d74 9\u22125",
    "...!?",
    "",
    "one",
    "one two three four",
)


def test_sizes_count_distinct_five_grams() -> None:
    rng = random.Random(5)
    texts = [*TEXTS, " ".join(rng.choices("abcd", k=3_000)), "a b c d e " * 100]
    assert shingle_sets(texts, 1).sizes.tolist() == [len(_grams(text)) for text in texts]


def test_equal_shingles_have_equal_hashes_wherever_they_stand() -> None:
    rng = random.Random(6)
    texts = [
        " ".join(rng.choices(["caf\u00e9", "b", "word", "12"], k=rng.randint(1, 400))) for _ in range(40)
    ]
    found = _per_document(shingle_sets(texts, 1))
    for one in range(0, 40, 7):
        for other in range(40):
            assert len(found[one] & found[other]) == len(_grams(texts[one]) & _grams(texts[other]))


def test_pieces_and_neighbours_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    texts = ["".join(rng.choices(["w", "x", " ", "\n", "\u4e16", "1"], k=900)) for _ in range(5)]
    texts.append("plain Ascii 12 + 3 " * 50)  # hashed as bytes where it is alone
    whole = _per_document(shingle_sets(texts, 1))
    assert whole == [_per_document(shingle_sets([text], 1))[0] for text in texts]
    monkeypatch.setattr(shingles, "PIECE_CHARACTERS", 97)
    assert _per_document(shingle_sets(texts, 1)) == whole


def test_a_mark_at_the_beginning_belongs_to_its_own_document() -> None:
    marked = [
        "plain words before",
        "\u0301 leads here",
        "\u0345\u0e31 and here",
        "\u200b\u0301x",
        "\0\u0301 nul",
    ]
    alone = [_per_document(shingle_sets([text], 1))[0] for text in marked]
    assert _per_document(shingle_sets(marked, 1)) == alone


def test_long_words_and_long_documents_are_not_cut_off() -> None:
    long_word = "x" * (2 * shingles.PIECE_CHARACTERS)
    text = " ".join(str(number) for number in range(60_000))
    sets = shingle_sets([long_word, text, text + " end"], 1)
    assert 59_990 < sets.sizes[1] <= 59_996  # a few of 60,000 32-bit hashes may be equal
    assert sets.sizes[2] == sets.sizes[1] + 1


def test_seed_changes_hashes_and_nothing_else() -> None:
    first, second = shingle_sets(TEXTS, 1), shingle_sets(TEXTS, 2)
    assert np.array_equal(first.sizes, second.sizes)
    assert not np.intersect1d(first.hashes, second.hashes).size


def _grams(text: str) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[start : start + 5]) for start in range(max(len(found) - 4, min(len(found), 1)))}


def _per_document(sets: ShingleSets) -> list[set[int]]:
    return [set(part.tolist()) for part in np.split(sets.hashes, np.cumsum(sets.sizes)[:-1])]
