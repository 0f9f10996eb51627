"""What a page tells of `corpus_manifest.json`: lists are cut while it is read, so that little is kept of a large one."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from picochat_server.pages.stored import Shown

SHOWN_SHARES = 20  # licences, labels and sources
SHOWN_EXAMPLES = 5
NEAR_DUPLICATE = "near_duplicate"


class Share(Shown):
    documents: int
    characters: int


class Stats(Shown):
    num_read: int
    num_documents: int
    num_removed: int
    num_characters: int
    num_bytes: int
    num_files: int
    num_skipped_files: int
    largest_document_share: float | None = None


class ReadinessCheck(Shown):
    name: str
    status: Literal["ready", "caution", "blocked"]
    measured: float | None
    threshold: float
    message: str


class Readiness(Shown):
    status: Literal["ready", "caution", "blocked"]
    summary: str
    checks: Annotated[list[ReadinessCheck], Field(max_length=50)]


class Dropped(Shown):
    """A document that was removed because it is nearly another one."""

    path: str
    duplicate_of: str | None = None
    similarity: float | None = None


class Source(Shown):
    type: str
    path: str | None = None
    name: str | None = None
    label: str | None = None
    license: str | None = None
    documents: int
    characters: int
    limit_reached: bool = False


def _largest(shares: Any) -> Any:
    """The largest by documents; what is no mapping of mappings is left for the types to refuse."""
    if not isinstance(shares, Mapping) or not all(isinstance(share, Mapping) for share in shares.values()):
        return shares
    ordered = sorted(shares.items(), key=lambda item: -_number(item[1].get("documents")))
    return {"num": len(ordered), "largest": dict(ordered[:SHOWN_SHARES])}


def _near(rows: Any) -> Any:
    if not isinstance(rows, list):
        return rows
    near = (row for row in rows if isinstance(row, Mapping) and row.get("reason") == NEAR_DUPLICATE)
    return list(islice(near, SHOWN_EXAMPLES))


def _first(rows: Any) -> Any:
    return {"num": len(rows), "first": rows[:SHOWN_SHARES]} if isinstance(rows, list) else rows


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


class Shares(Shown):
    """How the corpus is made up by one property. The empty name stands for documents without it."""

    num: int
    largest: dict[str, Share]


class Sources(Shown):
    num: int
    first: list[Source]


class CorpusReport(Shown):
    """`corpus_manifest.json`."""

    stats: Stats
    dropped_counts: Annotated[dict[str, int], Field(max_length=50)]
    licenses: Annotated[Shares, BeforeValidator(_largest)]
    labels: Annotated[Shares, BeforeValidator(_largest)]
    readiness: Readiness
    sources: Annotated[Sources, BeforeValidator(_first)]
    dropped: Annotated[list[Dropped], BeforeValidator(_near)] = []
    """The first near duplicates."""

    @property
    def removed(self) -> list[tuple[str, int]]:
        """Documents removed by reason, most first."""
        return sorted(self.dropped_counts.items(), key=lambda item: (-item[1], item[0]))
