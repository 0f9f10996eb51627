"""What one document, or a piece of it, shares with one pattern: the values that workers send back."""

from typing import Final, NamedTuple

MAX_EXCERPT: Final = 400


class Span(NamedTuple):
    """A place in a document."""

    start: int
    """First character in the document."""
    end: int
    text: str
    """What stands there, cut after `MAX_EXCERPT` characters."""

    def up_to(self, end: int) -> "Span":
        """The part before this character of the document."""
        return Span(self.start, end, self.text[: end - self.start])


class Whole(NamedTuple):
    """A part of a pattern that stands in the document whole."""

    part: int
    exact: bool
    span: Span


class Run(NamedTuple):
    """Tokens in a row that pattern and document share: at least 8, and every 8 of them are no template."""

    first: int
    """Token of the pattern."""
    num_tokens: int
    prompt_end: int
    """End of what the prompt shares, in characters of the document."""
    span: Span


class Near(NamedTuple):
    """An alignment of a part with a passage."""

    part: int
    share: float
    """Weight of the aligned tokens over the weight of all."""
    first: int
    last: int
    """First and last aligned token of the pattern."""
    span: Span


class Match(NamedTuple):
    document: int
    """0-based place of the document in the stream."""
    document_id: str
    pattern: int
    wholes: tuple[Whole, ...]
    runs: tuple[Run, ...]
    nears: tuple[Near, ...]
