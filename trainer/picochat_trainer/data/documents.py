"""A document on its way from a source into the corpus."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document as it came, before any filter. Paths are relative to the source, so that equal input gives an
    equal manifest on every machine."""

    path: str
    """`folder/file.txt`, or with the record's line (text kinds) or row number, `file.jsonl:17`."""
    text: str
    source: int
    """0-based index into the dataset's sources."""
    label: str | None = None
    license: str | None = None
