"""Cuts a stream of documents into blocks of about equal size: many short documents, or a piece of a long one.

Pieces of a document overlap by so many tokens that whatever is looked for lies wholly in one of them.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from picochat_trainer.data.contamination.tokens import tokenize

BLOCK_CHARACTERS: Final = 1 << 17
"""The arrays of a block fit into a core's cache: measured, twice or half as much is no faster."""
CUT_TOKENS: Final = 2
"""Tokens beside a cut that do not count: a word or an exercise may be cut in two there."""
_CHARACTERS_PER_TOKEN: Final = 8


class Segment(NamedTuple):
    """A document, or a piece of one."""

    document: int
    """0-based place in the stream."""
    document_id: str
    text: str
    start: int
    """Its first character in the document."""
    cut_left: bool
    """The document goes on to the left."""
    cut_right: bool


def cut_blocks(
    documents: Iterable[tuple[str, str]], overlap_tokens: int, *, block_characters: int = BLOCK_CHARACTERS
) -> Iterator[list[Segment]]:
    """Blocks in the order of the documents, each an (id, text); a document that is longer than a block is cut."""
    # Else a block would be mostly overlap.
    size = max(block_characters, 2 * _CHARACTERS_PER_TOKEN * overlap_tokens)
    block: list[Segment] = []
    num_characters = 0
    for number, (document_id, text) in enumerate(documents):
        if block and num_characters + len(text) > size:
            yield block
            block, num_characters = [], 0
        if len(text) > size:
            for piece in _pieces(Segment(number, document_id, text, 0, False, False), size, overlap_tokens):
                yield [piece]
        else:
            block.append(Segment(number, document_id, text, 0, False, False))
            num_characters += len(text) + 1
    if block:
        yield block


def _pieces(document: Segment, size: int, overlap_tokens: int) -> Iterator[Segment]:
    text = document.text
    for start in range(0, len(text), size):
        end = _after_tokens(text, start + size, overlap_tokens)
        yield document._replace(
            text=text[start:end], start=start, cut_left=start > 0, cut_right=end < len(text)
        )


def _after_tokens(text: str, start: int, num_tokens: int) -> int:
    """A place in the text with at least so many tokens between it and `start`, or the text's end."""
    size = _CHARACTERS_PER_TOKEN * num_tokens
    while start + size < len(text):
        if len(tokenize(text[start : start + size])) >= num_tokens:
            return start + size
        size *= 2
    return len(text)
