"""Cuts a long text into pieces whose ids, one after another, are those of the whole text."""

import re
from typing import Final

# After a line end and before a letter or digit: none of our pre-tokenizers makes a token across it.
_LINE_END: Final = r"\n(?=\w)"
# Nor across the end of a run of letters. Only letters and signs that every Unicode version knows as such.
_WORD_END: Final = (
    r"(?<=[A-Za-z\u0e01-\u0e2e\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3])"
    r"(?=[ ,.;:!?\"()\u3001\u3002\uff0c])"
)
_NEXT_LINE: Final = re.compile(_LINE_END)
_NEXT_WORD: Final = re.compile(_WORD_END)
_NEXT: Final = re.compile(f"{_LINE_END}|{_WORD_END}")


def cut(text: str, limit: int) -> list[str]:
    """Pieces of `limit` characters and the rest of the line, or of the word where the line is as long again; longer
    only where nothing ends."""
    pieces, start = [], 0
    while len(text) - start > limit and (end := _next_cut(text, start + limit, limit)) is not None:
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _next_cut(text: str, place: int, room: int) -> int | None:
    """Where to cut at `place` or behind, if possible within `room` characters, in which the text may also end."""
    found = _NEXT_LINE.search(text, place, place + room)
    if found is None and len(text) > place + room:
        found = _NEXT_WORD.search(text, place, place + room) or _NEXT.search(text, place)
    return None if found is None else found.end()
