"""Pieces stay near their limit wherever a text gives a place to cut; that ids stay those of the whole is in
tests/trainer/tokens/test_encoders.py."""

import pytest
from picochat_trainer.tokenizer.cutting import cut

LIMIT = 100


@pytest.mark.parametrize(
    "text",
    [
        "word and word, " * 200,  # a line without end
        "\u6771\u4eac\u90fd\u306f\u65e5\u672c\u3002" * 300,
        "\ud55c\uad6d\uc5b4 " * 300,
        "one line\n" * 200,
        '{"key":"value","other":12},' * 200,
    ],
)
def test_pieces_are_at_most_twice_the_limit(text: str) -> None:
    pieces = cut(text, LIMIT)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 2 * LIMIT
    assert len(pieces) > 5


def test_a_line_end_is_taken_before_a_place_inside_a_line() -> None:
    line = "x y" * 45 + "\n"
    assert cut(line * 3, LIMIT) == [line] * 3


def test_what_has_no_place_to_cut_stays_whole() -> None:
    assert cut("=" * 1_000, LIMIT) == ["=" * 1_000]
    assert cut("=" * 1_000 + "\nx", LIMIT) == ["=" * 1_000 + "\n", "x"]


def test_cutting_a_long_text_takes_linear_time() -> None:
    assert len(cut("=" * 2_000_000, 10)) == 1  # would take minutes were each search begun again
