"""The numpy tokens are those of `normalize.words`, on any text, and know where they stand."""

import random

import pytest
from picochat_trainer.data.contamination.tokens import tokenize
from picochat_trainer.data.normalize import folded, words

ALPHABETS = [
    "abcXYZ  019+-*/<=%^.,_\n\t\x00\x1c",
    "\u00e9\u00c9\u00df\u0130\u0131\ufb01\u00bd\u00b2\u2122\u2026\u201c\u2019\u00ab\u2014\u00a0\u00ad\u200b\u200d\ufeff\uff11\uff0b",
    "".join(map(chr, range(0x300, 0x370))),
    "\u03b1\u0391\u03ac\u1fb3\u1fbc\u0345\u0301\u03c3\u03c2\u03a3\u03c9",
    "".join(map(chr, range(0x900, 0x980))),
    "".join(map(chr, range(0xE00, 0xE80))),
    "".join(map(chr, range(0x590, 0x700))),
    "\u6771\u4eac\u5927\u962a\u3001\u3002\u300c\u30a1\u30ab\u3099\uff76\uff9e\u30fc\u3005\u3007",
    "".join(map(chr, [*range(0x1100, 0x1110), *range(0x1161, 0x1170), *range(0x11A8, 0x11B0)]))
    + "\ud55c\uad6d",
    "".join(map(chr, range(0x1F00, 0x2000))),
    "\U0001d173\U000e0001\U0002f800\U0001d400\U00020000\ud800",
]


def assert_same(text: str) -> None:
    tokens = tokenize(text)
    assert tokens.words(0, len(tokens)) == words(text), ascii(text)


@pytest.mark.parametrize("seed", range(8))
def test_any_text_gives_the_words_of_the_normal_form(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(400):
        alphabets = rng.sample(ALPHABETS, rng.randint(1, 4))
        assert_same("".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randint(0, 50))))


@pytest.mark.parametrize("filler", ["x", "two words ", "\u6771", "\u0939\u093f"])
def test_a_joining_mark_far_from_others_is_found(filler: str) -> None:
    rng = random.Random(filler)
    for _ in range(30):
        odd = "".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(20))
        assert_same(odd + filler * rng.choice((100, 700)) + odd[::-1] + filler * 600)


def test_every_character_alone_and_between_others() -> None:
    plain = {*range(0x3500, 0x4D00), *range(0x5000, 0x9F00), *range(0xAC10, 0xD700), *range(0xE010, 0xF8F0)}
    for point in [
        *(p for p in range(0x3100) if p not in plain),
        *range(0xA640, 0xAC00),
        *range(0xF900, 0x10000),
    ]:
        character = chr(point)
        assert_same(f"ab{character}cd 3{character}4 5 {character} 6{character}\u0301 {character}\u0338")


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("One, two", [(0, 3), (5, 8)]),
        ("3 +\n4", [(0, 1), (2, 3), (4, 5)]),
        ("e\u0301te\u0301 x", [(0, 5), (6, 7)]),
        ("co\u00adop\u200b.", [(0, 6)]),
        ("\ufb01n \u00bd", [(0, 2), (3, 4), (3, 4)]),
        ("\u6771\u4eacab", [(0, 1), (1, 2), (2, 4)]),
        ("a\0\u0301\u0345 b", [(0, 1), (2, 4), (5, 6)]),
        ("", []),
    ],
)
def test_tokens_stand_at_characters_of_the_text(text: str, spans: list[tuple[int, int]]) -> None:
    tokens = tokenize(text)
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)) == spans


def test_a_span_holds_its_token() -> None:
    rng = random.Random(5)
    for _ in range(500):
        text = "".join(
            rng.choice("ab1 +.\u200b\u00ad\u0301\ufb01\u00bd\u00df\u6771\ufeff\u0e01\u0e33")
            for _ in range(30)
        )
        tokens = tokenize(text)
        for word, start, end in zip(tokens.words(0, len(tokens)), tokens.starts, tokens.ends, strict=True):
            assert word in folded(text[start:end])


def test_equal_tokens_have_equal_hashes_wherever_they_stand() -> None:
    tokens = tokenize("Alpha beta, ALPHA \uff41lpha\u2026 beta " + "x" * 3000 + " alpha")
    alpha = {
        h
        for h, word in zip(tokens.hashes.tolist(), tokens.words(0, len(tokens)), strict=True)
        if word == "alpha"
    }
    assert len(alpha) == 1
    assert tokenize("alpha").hashes.tolist() == list(alpha)
    assert len(set(tokens.hashes.tolist())) == 3
