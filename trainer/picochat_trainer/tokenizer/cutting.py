"""Cuts a long text into pieces whose ids, one after another, are those of the whole text."""

import re
from typing import Final

# After a line end and before a letter or digit: none of our pre-tokenizers makes a token across it.
_SAFE_CUT: Final = re.compile(r"\n(?=\w)")


def cut(text: str, limit: int) -> list[str]:
    """Pieces of `limit` characters and the rest of the line; longer where no line ends before a letter or digit."""
    pieces, start = [], 0
    while len(text) - start > limit and (end := _SAFE_CUT.search(text, start + limit)) is not None:
        pieces.append(text[start : end.end()])
        start = end.end()
    return [*pieces, text[start:]]
