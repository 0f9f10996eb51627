"""Unicode of a document: one form, Unix line ends, junk removed and counted; what carries meaning stays."""

import unicodedata
from typing import Literal

import pytest
from picochat_trainer.data.cleaning.characters import count_broken, normalise

DECOMPOSED = "cafe\u0301"


@pytest.mark.parametrize(
    ("form", "expected"),
    [("nfc", "caf\u00e9 \ufb01"), ("nfkc", "caf\u00e9 fi"), ("keep", f"{DECOMPOSED} \ufb01")],
)
def test_each_form_gives_its_text(form: Literal["nfc", "nfkc", "keep"], expected: str) -> None:
    assert normalise(f"{DECOMPOSED} \ufb01", form).text == expected


@pytest.mark.parametrize("end", ["\r\n", "\r", "\v", "\f", "\u0085", "\u2028", "\u2029"])
def test_every_line_end_becomes_a_newline(end: str) -> None:
    assert normalise(f"a{end}b", "nfc").text == "a\nb"


@pytest.mark.parametrize("text", ["a\x00b\x1bc\td", "\u00e9a\x00b\x9bc\td"])
def test_control_characters_are_removed_and_counted(text: str) -> None:
    found = normalise(text, "nfc")
    assert (found.num_control, found.text) == (
        2,
        "".join(c for c in text if c == "\t" or ord(c) not in (0, 27, 0x9B)),
    )


def test_zero_width_junk_goes_and_joiners_stay() -> None:
    found = normalise("\ufeffa\u200bb\u2060c\u00add \u0646\u200c\u0645 \U0001f468\u200d\U0001f469", "nfc")
    assert found.text == "abcd \u0646\u200c\u0645 \U0001f468\u200d\U0001f469"
    assert found.num_zero_width == 4


def test_replacement_characters_are_counted_and_stay() -> None:
    found = normalise("lost: \ufffd\ufffd", "nfc")
    assert (found.text, found.num_replacement) == ("lost: \ufffd\ufffd", 2)


def test_half_a_surrogate_pair_becomes_encodable() -> None:
    assert normalise("a\ud83d b", "keep").text.encode().decode() == "a\ufffd b"


def test_keep_counts_without_changing() -> None:
    found = normalise("a\x00\u200bb", "keep")
    assert (found.text, found.num_control, found.num_zero_width) == ("a\x00\u200bb", 1, 1)
    assert normalise("a\x00b", "keep").text == "a\x00b"


@pytest.mark.parametrize(
    "text", ["plain", "", DECOMPOSED, "\u6771\u4eac\r\n\x00", "\u0130\ufb01\u1e9b\u0323"]
)
def test_a_second_pass_changes_nothing(text: str) -> None:
    once = normalise(text, "nfc").text
    assert normalise(once, "nfc").text == once == unicodedata.normalize("NFC", once)


def test_broken_characters_are_counted_in_any_script() -> None:
    assert count_broken("a\x07b\u00e9\x85\x9f\ufffd\n\t") == 3
