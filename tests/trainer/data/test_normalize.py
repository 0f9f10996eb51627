"""Normal form: what two texts may differ in and still be the same."""

import pytest
from picochat_trainer.data.normalize import is_unspaced, normal_form, words


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("What's  the CAPITAL?", "what s the capital"),
        ("\uff37\uff48\uff41\uff54 \uff11\uff12\uff05", "what 12"),
        ("Stra\u00dfe \ufb01n", "strasse fin"),
        ("na\u00efve = nai\u0308ve", "na\u00efve na\u00efve"),
        ("_emphasis_ snake_case", "emphasis snake case"),
        ("co\u00adoperate zero\u200bwidth \ufeffmark", "cooperate zerowidth mark"),
        ("\u00ab12\u00a0+\u00a03\u00bb", "12 + 3"),
        ("12+3 - 4 well-known -5", "12 + 3 - 4 well known 5"),
        ("\u6771\u4eac\u3001\u5927\u962a", "\u6771 \u4eac \u5927 \u962a"),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
        ),
        (
            "\u043f\u0440\u0438\u0432\u0435\u0442\u060c \u0645\u0631\u062d\u0628\u0627\u061f",
            "\u043f\u0440\u0438\u0432\u0435\u0442 \u0645\u0631\u062d\u0628\u0627",
        ),
        ("?! ...", ""),
    ],
)
def test_normal_form(text: str, form: str) -> None:
    assert normal_form(text) == form


def test_a_sign_between_numbers_tells_exercises_apart() -> None:
    assert normal_form("What is 12 + 3?") != normal_form("What is 12 - 3?")


def test_a_normal_form_is_its_own() -> None:
    text = "The \u201cOld\u201d bridge, 12+3\u2026 \u6771\u4eac \u00c5ngstr\u00f6m \u2167"
    assert words(normal_form(text)) == words(text)


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert (
        is_unspaced("\u6771")
        and is_unspaced("\u0e01")
        and not is_unspaced("abc")
        and not is_unspaced("\u0439")
    )
