"""What is known about a corpus once it is built: the values that manifest, report and readiness are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from picochat_contract.data_configs import CleaningConfig

from picochat_trainer.data.building.tally import Share
from picochat_trainer.data.cleaning.personal_data import PersonalData

INCLUDED: Final = "included"
PERSONAL_COUNTERS: Final = frozenset(f"num_{kind.value}" for kind in PersonalData)


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    num_files: int
    num_skipped_files: int
    """Files without any document in the corpus."""
    num_read: int
    """Documents that came in."""
    num_documents: int
    """In the corpus, with the copies that weights made."""
    num_removed: int
    """Documents that came in and are not in the corpus."""
    num_exact_removed: int
    num_near_removed: int
    num_other_removed: int
    num_characters: int
    """Of corpus.txt, separators included."""
    num_bytes: int
    """Of corpus.txt, separators included."""
    num_lines: int
    """Of corpus.txt, blank ones between documents included."""
    average_document_chars: float
    largest_document_share: float
    """Share of all characters in one document."""
    duplicate_document_rate: float
    """Share of the documents that passed the filters which repeat an earlier one, removed or not."""
    exact_left: float
    """Share of the corpus's documents, without copies, that repeat an earlier one."""
    near_duplicate_document_rate: float | None
    """Share of the documents compared that are nearly an earlier one; None where nobody looked."""
    near_duplicate_document_pairs: int
    """Removed documents, each with the one that it is like."""
    near_duplicate_documents_checked: int
    near_left: float | None
    """Share of the corpus's documents that are nearly an earlier one; None where nobody looked."""
    duplicate_line_rate: float
    duplicate_line_sample: float
    """Share of all different lines that this was measured on; 1 is all of them."""
    non_ascii_rate: float
    empty_line_rate: float
    """Of the lines of documents: those between them are not counted."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A source file and what became of it."""

    path: str
    extension: str
    label: str | None
    license: str | None
    source: int
    included: bool
    reason: str
    """included, why the file was not read, or why its documents were dropped."""
    num_documents: int
    num_characters: int
    num_lines: int
    quality_score: float | None
    """Mean over its documents."""
    quality_flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    path: str
    """Run-folder name."""
    sha256: str
    size_bytes: int
    num_documents: int
    num_characters: int
    num_bytes: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything that the manifest and the report say."""

    text: str | None
    """Run-folder name of the text file, where there is one."""
    text_sha256: str | None
    shards: tuple[ShardRecord, ...]
    cleaning: CleaningConfig
    min_score: float
    stats: CorpusStats
    counters: Mapping[str, int]
    """What cleaning counted in all documents that came in."""
    labels: Mapping[str | None, Share]
    licenses: Mapping[str | None, Share]
    source_shares: Mapping[int, Share]
    """By index of the source; one that is not here gave nothing."""
    full_sources: frozenset[int]
    """Sources whose limit was reached with documents left."""
    scores: Mapping[int, int]
    """Documents by quality score, in tens."""
    flags: Mapping[str, int]
    documents: tuple[dict[str, Any], ...]
    """The first ones."""
    dropped: tuple[dict[str, Any], ...]
    """The first ones."""
    dropped_counts: Mapping[str, int]
    dropped_examples: Mapping[str, tuple[dict[str, Any], ...]]
    """Up to three by reason."""
    files: tuple[FileRecord, ...]
    """The first ones."""

    @property
    def counted(self) -> dict[str, int | None]:
        """`counters` by name; None where nobody looked."""
        looked = self.cleaning.pii != "keep"
        return {
            name: num if looked or name not in PERSONAL_COUNTERS else None
            for name, num in sorted(self.counters.items())
        }

    @property
    def is_empty(self) -> bool:
        return self.stats.num_documents == 0
