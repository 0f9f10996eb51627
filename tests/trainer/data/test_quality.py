"""Each penalty trips at its limit and not before."""

import pytest
from picochat_trainer.data.quality import LONG_LINE, measure_quality

CLEAN = "\n".join(f"Line {number} says something new and ordinary." for number in range(60))


def test_clean_text_scores_100() -> None:
    quality = measure_quality(CLEAN)
    assert (quality.score, quality.flags) == (100, ())


@pytest.mark.parametrize(
    ("text", "flag", "cost"),
    [
        (CLEAN[:199], "very_short", 25),
        (CLEAN[:900], "short", 10),
        ("x" * LONG_LINE, "one_long_line", 10),
        (CLEAN + "\nagain" * 30, "many_repeated_lines", 25),
        (CLEAN + "\nagain" * 12, "repeated_lines", 10),
        (CLEAN.replace("\n", "\n\n\n"), "many_empty_lines", 10),
        (CLEAN + "\u00e9" * 400, "mostly_non_ascii", 15),
        (CLEAN + "\u00e9" * 200, "non_ascii", 8),
        (CLEAN + "\x07", "control_characters", 25),
        (CLEAN + "\ufffd", "control_characters", 25),
    ],
)
def test_each_flaw_costs_its_points(text: str, flag: str, cost: int) -> None:
    quality = measure_quality(text)
    assert (quality.flags, quality.score) == ((flag,), 100 - cost)


def test_the_score_never_falls_below_zero() -> None:
    assert measure_quality("\x00\u00e9").score >= 0
    assert measure_quality(" \n ").score == 0
