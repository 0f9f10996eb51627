"""Globs on relative paths."""

import pytest
from picochat_contract.globs import matches


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/b.md", "*.md", True),
        ("b.MD", "*.md", False),
        ("docs/b.md", "docs/**/*.md", True),
        ("docs/a/c/b.md", "docs/**/*.md", True),
        ("x/docs/b.md", "docs/**/*.md", False),
        ("x/docs/b.md", "**/docs/*.md", True),
        ("x/build/y/z.txt", "build", True),
        ("x/build/y/z.txt", "build/", True),
        ("a/b/c.txt", "a/*", True),
        ("a/x.txt", "/x.txt", False),
        ("x.txt", "/x.txt", True),
        ("a/b.txt", "a/**", True),
        ("a", "a/**", False),
        ("abc.txt", "[a-c]bc.*", True),
        ("abc.txt", "[!a-c]bc.*", False),
        ("a[.txt", "a[.txt", True),
        ("a-b", "a[x-]b", True),
        ("a/b", "a?b", False),
        ("a/b", "a[!x]b", False),
        ("a\nb.txt", "*.txt", True),
        ("a", "", False),
    ],
)
def test_a_glob_matches_a_path_or_a_folder_above_it(path: str, pattern: str, expected: bool) -> None:
    assert matches(path, ["nothing", pattern]) is expected


def test_no_pattern_matches_nothing() -> None:
    assert not matches("a", [])
