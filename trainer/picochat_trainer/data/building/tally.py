"""Sums over the documents of a corpus that add up shard by shard, whatever their number."""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Final, Self

REPORTED_FILES: Final = 10_000


@dataclass(kw_only=True)
class Share:
    """What a label, a licence or a source has in the corpus."""

    documents: int = 0
    characters: int = 0

    def add(self, other: Self) -> None:
        self.documents += other.documents
        self.characters += other.characters


@dataclass(kw_only=True)
class FileTally:
    """What became of the documents of one file."""

    num_read: int = 0
    score_sum: int = 0
    """Of the documents read."""
    num_documents: int = 0
    """In the corpus, copies included."""
    num_characters: int = 0
    num_lines: int = 0
    reasons: set[str] = field(default_factory=set)
    """Why others of its documents are not in the corpus."""
    flags: set[str] = field(default_factory=set)

    def add(self, other: Self) -> None:
        self.num_read += other.num_read
        self.score_sum += other.score_sum
        self.num_documents += other.num_documents
        self.num_characters += other.num_characters
        self.num_lines += other.num_lines
        self.reasons |= other.reasons
        self.flags |= other.flags


@dataclass(kw_only=True)
class Tally:
    """Of the corpus unless said otherwise, copies included."""

    num_documents: int = 0
    num_characters: int = 0
    """Without separators, as all that follows."""
    num_bytes: int = 0
    num_lines: int = 0
    num_filled_lines: int = 0
    num_non_ascii: int = 0
    largest_document: int = 0
    """Characters."""
    num_read: int = 0
    """Documents that came in."""
    scores: Counter[int] = field(default_factory=Counter)
    """Documents by quality score, in tens; 100 for itself."""
    flags: Counter[str] = field(default_factory=Counter)
    """Documents by quality flag."""
    counters: Counter[str] = field(default_factory=Counter)
    """What cleaning counted in the documents that came in."""
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    labels: dict[str | None, Share] = field(default_factory=dict)
    licenses: dict[str | None, Share] = field(default_factory=dict)
    sources: dict[int, Share] = field(default_factory=dict)
    files: dict[int, FileTally] = field(default_factory=dict)
    """The first REPORTED_FILES, by number."""
    num_files_kept: int = 0
    """Files with a document in the corpus."""
    first_file_kept: int = -1
    last_file_kept: int = -1
    """Their first and last number, or -1."""

    def add(self, other: Self) -> None:
        """Add what comes behind: a file that ends there and begins here counts once."""
        if other.num_files_kept:
            self.num_files_kept -= self.last_file_kept == other.first_file_kept
            if self.first_file_kept < 0:
                self.first_file_kept = other.first_file_kept
            self.last_file_kept = other.last_file_kept
        self.largest_document = max(self.largest_document, other.largest_document)
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _COUNTERS:
            getattr(self, name).update(getattr(other, name))
        for name in _TABLES:
            table = getattr(self, name)
            for key, value in getattr(other, name).items():
                if key in table:
                    table[key].add(value)
                else:
                    table[key] = value


_SUMS: Final = tuple(f.name for f in fields(Tally) if f.type is int and f.name.startswith("num_"))
_COUNTERS: Final = ("scores", "flags", "counters", "dropped")
_TABLES: Final = ("labels", "licenses", "sources", "files")
