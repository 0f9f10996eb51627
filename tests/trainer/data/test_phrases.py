"""The automaton finds exactly what a plain search finds."""

import random

import pytest
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.data.phrases import PhraseIndex


def plain_search(phrases: list[list[str]], tokens: list[str]) -> set[tuple[int, int]]:
    return {
        (index, start)
        for index, phrase in enumerate(phrases)
        for start in range(len(tokens) - len(phrase) + 1)
        if tokens[start : start + len(phrase)] == phrase
    }


def test_random_texts_give_the_matches_of_a_plain_search() -> None:
    rng = random.Random(3)
    for _ in range(200):
        tokens = [rng.choice("ab") for _ in range(rng.randrange(40))]
        phrases = [list(p) for p in {tuple(rng.choices("ab", k=rng.randrange(1, 6))) for _ in range(6)}]
        found = PhraseIndex(phrases).matches((token, place) for place, token in enumerate(tokens))
        assert set(found) == plain_search(phrases, tokens)


@pytest.mark.parametrize("phrases", [[[]], [["a"], ["a"]]])
def test_empty_and_repeated_phrases_are_refused(phrases: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="empty or repeats"):
        PhraseIndex(phrases)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What IS  it?", "what is it"),
        ("\uff37\uff48\uff41\uff54 is it", "What is it"),
        ("Stra\u00dfe", "STRASSE"),
        ("12+3", "12 + 3"),
        ("foo - bar", "foo bar"),
    ],
)
def test_variants_have_one_normal_form(left: str, right: str) -> None:
    assert normal_form(left) == normal_form(right)


@pytest.mark.parametrize(
    ("left", "right"), [("12 + 3", "12 - 3"), ("2 * 3", "2 / 3"), ("\u6771\u4eac", "\u4eac\u6771")]
)
def test_what_means_something_else_stays_different(left: str, right: str) -> None:
    assert normal_form(left) != normal_form(right)
