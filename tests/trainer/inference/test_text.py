"""Incremental text: whole characters, stop texts held back."""

import pytest
from picochat_trainer.inference.text import TextAssembler


def feed_all(data: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], TextAssembler]:
    assembler = TextAssembler(stop)
    pieces = [assembler.feed(bytes([byte])) for byte in data]
    return [*pieces, assembler.finish()], assembler


def test_a_character_comes_out_whole() -> None:
    pieces, _ = feed_all("a\u00e9\u20ac\U0001f600b".encode())
    assert [piece for piece in pieces if piece] == ["a", "\u00e9", "\u20ac", "\U0001f600", "b"]


def test_an_incomplete_character_at_the_end_is_dropped() -> None:
    pieces, assembler = feed_all("ab\U0001f600".encode()[:-1])
    assert "".join(pieces) == assembler.text == "ab"


def test_bytes_that_are_no_character_become_the_replacement() -> None:
    pieces, _ = feed_all(b"a\xff\xe2b")
    assert "".join(pieces) == "a\ufffd\ufffdb"


@pytest.mark.parametrize("text", ["hello END", "hello END tail", "hello ENEND"])
def test_no_part_of_a_stop_text_is_shown(text: str) -> None:
    pieces, assembler = feed_all(text.encode(), ("END",))
    assert assembler.stopped
    assert "".join(pieces) == text[: text.index("END")]


def test_the_start_of_a_stop_text_that_never_comes_is_shown_in_the_end() -> None:
    pieces, assembler = feed_all(b"hello EN", ("END",))
    assert not assembler.stopped
    assert pieces[-1] == "EN"
    assert "".join(pieces) == "hello EN"


def test_text_goes_on_when_a_stop_text_breaks_off() -> None:
    assembler = TextAssembler(("abc", "bd"))
    assert [assembler.feed(part) for part in (b"xa", b"b", b"e")] == ["x", "", "abe"]


def test_the_earliest_of_several_stop_texts_cuts() -> None:
    assembler = TextAssembler(("later", "so"))
    assert assembler.feed(b"not so much later") == "not "
    assert assembler.feed(b"more") == ""
