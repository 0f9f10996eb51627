"""Runs of equal lines, lines by digest, and digests that are the same wherever they are made."""

import subprocess
import sys

import numpy as np
import pytest
from picochat_trainer.data.cleaning.lines import (
    LONG_LINE_BYTES,
    filled_lines,
    line_digests,
    without_lines,
    without_runs,
)


@pytest.mark.parametrize(
    ("text", "expected", "removed"),
    [
        ("a\na\na\nb", "a\nb", 2),
        ("a\nb\na", "a\nb\na", 0),
        ("a\n\n\nb", "a\n\n\nb", 0),  # blank lines are layout
        ("x = 1\n  x = 1", "x = 1\n  x = 1", 0),  # indentation is meaning
        ("", "", 0),
        ("a\na", "a", 1),
    ],
)
def test_one_of_a_run_of_equal_lines_stays(text: str, expected: str, removed: int) -> None:
    assert without_runs(text) == (expected, removed)


def test_lines_are_removed_by_digest_and_blank_ones_stay() -> None:
    frequent = np.sort(line_digests(["Subscribe now!", "Home | About"]))
    texts = ["Home | About\nNews of today\n\n  Subscribe now!  ", "Untouched"]
    assert without_lines(texts, frequent) == (["News of today\n", "Untouched"], [2, 0])
    assert without_lines(texts, np.empty(0, np.uint64)) == (texts, [0, 0])


def test_filled_lines_are_stripped() -> None:
    assert filled_lines("  a \n\n\t\nb\n") == ["a", "b"]


def test_a_digest_depends_on_the_line_alone() -> None:
    lines = [
        "",
        "a",
        "ab",
        "abcdefgh",
        "abcdefghi",
        "caf\u00e9",
        "x" * LONG_LINE_BYTES,
        "y" * (LONG_LINE_BYTES + 1),
    ]
    together = line_digests(lines)
    assert len(set(together.tolist())) == len(lines)
    assert [int(line_digests([line])[0]) for line in lines] == together.tolist()
    assert line_digests(lines[::-1]).tolist() == together[::-1].tolist()
    assert len(line_digests([])) == 0


def test_no_two_of_many_lines_share_a_digest() -> None:
    lines = [f"{number:x}{'#' * (number % 23)}" for number in range(100_000)]
    assert len(np.unique(line_digests(lines))) == len(lines)


def test_another_process_finds_the_same_digests() -> None:
    code = "from picochat_trainer.data.cleaning.lines import line_digests; print(line_digests(['one', 'two']).tolist())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(line_digests(["one", "two"]).tolist())
