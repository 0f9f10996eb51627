"""Near duplicates of prompts: found where few characters differ, never where a number does."""

import random

import pytest
from picochat_trainer.tuning.near_prompts import MAX_BUCKET, near_prompts
from rapidfuzz import fuzz

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sentences(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(3, 9))) for _ in range(2_000)]
    return list({" ".join(rng.choices(words, k=rng.randint(6, 25))) for _ in range(count)})


def test_edited_prompts_are_found() -> None:
    rng = random.Random(2)
    originals = sentences(2_000)
    edited = []
    for prompt in originals:
        words = prompt.split()
        words[rng.randrange(len(words))] = "".join(rng.choices(LETTERS, k=5))
        edited.append(" ".join(words))
    expected = [i for i, pair in enumerate(zip(originals, edited, strict=True)) if fuzz.ratio(*pair) >= 90]
    found = {near.index: near.earlier for near in near_prompts([*originals, *edited])}
    assert len(expected) > 1_000
    assert sum(found.get(len(originals) + i) == i for i in expected) >= 0.99 * len(expected)
    assert not any(index < len(originals) for index in found)


def test_every_pair_that_is_reported_is_near() -> None:
    prompts = [f"what is the capital of the land of {word}" for word in sentences(1)[0].split()]
    for near in near_prompts(prompts):
        assert fuzz.ratio(prompts[near.index], prompts[near.earlier]) >= 90


def test_other_numbers_ask_something_else() -> None:
    assert near_prompts(["what is 1234 + 99 of them", "what is 1235 + 99 of them"]) == []
    [near] = near_prompts(["what is 1234 + 99 of them", "what is 1234 + 99 of then"])
    assert (near.index, near.earlier) == (1, 0)


def test_a_crowded_template_does_not_hide_a_copy() -> None:
    names = list({word for prompt in sentences(200) for word in prompt.split() if len(word) == 9})
    prompts = [f"tell me where {name} lives" for name in names]
    assert len(names) > 4 * MAX_BUCKET
    copies = [f"tell me where {name} lives now" for name in names]
    found = {near.index for near in near_prompts([*prompts, *copies])}
    assert sum(len(prompts) + i in found for i in range(len(copies))) >= 0.99 * len(copies)


@pytest.mark.parametrize("prompts", [[], ["one"], ["", "x"]])
def test_few_prompts_have_no_near_ones(prompts: list[str]) -> None:
    assert near_prompts(prompts) == []


def test_scripts_without_spaces_are_compared() -> None:
    one = " ".join("\u5929\u7a7a\u4e3a\u4ec0\u4e48\u662f\u84dd\u8272\u7684\u5462\u8bf7\u56de\u7b54")
    assert len(near_prompts([one, one[:-1] + "\u6848"])) == 1
