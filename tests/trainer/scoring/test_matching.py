"""Phrases, refusals, echoes and final answers."""

import pytest
from picochat_trainer.scoring.matching import REFUSALS, answer_matches, echo_reasons, holds, is_refusal


@pytest.mark.parametrize(
    ("text", "phrase", "expected"),
    [
        ("I was TRAINED from, scratch!", "trained from scratch", True),
        ("trained from the scratch", "trained from scratch", False),
        ("untrained from scratch", "trained from scratch", False),
        ("category", "cat", False),
        ("gr\u00fc\u00dfe", "GR\u00dcSSE", True),
        ("a -> b", "->", True),
        ("a b", "->", False),
        ("", "x", False),
    ],
)
def test_phrases_are_runs_of_whole_words(text: str, phrase: str, expected: bool) -> None:
    assert holds(text, phrase) is expected


@pytest.mark.parametrize("phrase", REFUSALS)
def test_every_refusal_phrase_is_seen(phrase: str) -> None:
    assert is_refusal(f"Sorry, {phrase.upper()}.")


@pytest.mark.parametrize(
    "reply",
    ["", "red", "You do not know it, but I do", "The note does say so", "I know", "I\u2019ll not say"],
)
def test_other_replies_are_no_refusals(reply: str) -> None:
    assert not is_refusal(reply)


def test_a_typographic_apostrophe_refuses_too() -> None:
    assert is_refusal("I don\u2019t know.")


@pytest.mark.parametrize(
    ("prompt", "reply", "reasons"),
    [
        ("What is your name today?", "what is your name today? Picochat", ("repeats_prompt",)),
        ("Hi", "Hi", ()),
        ("Anything at all?", "Fine.\nUser: more", ("chat_role_label",)),
        ("Anything at all?", "Fine <|im_end|>", ("chat_marker",)),
        ("Anything at all?", "Fine, what did the user: say", ()),
    ],
)
def test_echoes_are_named(prompt: str, reply: str, reasons: tuple[str, ...]) -> None:
    assert echo_reasons(prompt, reply) == reasons


@pytest.mark.parametrize(
    ("reply", "accepted", "expected"),
    [
        ("42", "42", True),
        ("42.", "42", True),
        ("042", "42", True),
        ("1,234.0", "1234", True),
        ("It is 42", "42", True),
        ("40 + 2 = 42", "42", True),
        ("42 or 43", "42", False),
        ("142", "42", False),
        ("-42", "42", False),
        ("40 + 2 = 42\nFinal answer: 41", "42", False),
        ("Answer: 41\nno, final answer: 42", "42", True),
        ("c a t", "c a t", True),
        ("the color is Red!", "red", True),
        ("red is the color", "red", False),
        ("", "red", False),
        ("12345678901234567890", "12345678901234567891", False),
    ],
)
def test_final_answers(reply: str, accepted: str, expected: bool) -> None:
    assert answer_matches(reply, [accepted]) is expected
