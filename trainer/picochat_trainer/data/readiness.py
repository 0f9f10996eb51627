"""Is this corpus worth training on? Simple limits on its statistics: ready, caution or blocked, with reasons."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from picochat_client.folders import EXCLUDED

from picochat_trainer.data.facts import Corpus

SMALL_CORPUS: Final = 1_000  # characters
DOMINANT_DOCUMENT: Final = 0.9  # share of all characters in one document


class Status(StrEnum):
    READY = "ready"
    CAUTION = "caution"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class ReadinessCheck:
    name: str
    status: Status
    measured: float | None
    """None where nobody looked."""
    threshold: float
    message: str


@dataclass(frozen=True, kw_only=True)
class Readiness:
    status: Status
    summary: str
    checks: tuple[ReadinessCheck, ...]


def judge_corpus(corpus: Corpus) -> Readiness:
    """Apply every limit to the corpus as it is after cleaning. One that is passed over makes it `caution`; without any
    text it is `blocked`."""
    stats = corpus.stats
    unlicensed = corpus.licenses.get(None)
    checks = (
        _at_least("usable_documents", stats.num_documents, 2, "documents; one cannot be held out whole"),
        _at_least("corpus_size", stats.num_characters, SMALL_CORPUS, "characters"),
        _at_most(
            "document_mix", stats.largest_document_share, DOMINANT_DOCUMENT, "of the text is one document"
        ),
        _at_most(
            "duplicate_documents",
            stats.exact_left,
            0.05,
            f"of the documents repeat another; {stats.num_exact_removed:,} were removed",
        ),
        _at_most(
            "near_duplicate",
            stats.near_left,
            0.05,
            f"of the documents are nearly another; {stats.num_near_removed:,} were removed",
        ),
        _at_most("duplicate_lines", stats.duplicate_line_rate, 0.15, "repeated lines"),
        _at_most("empty_lines", stats.empty_line_rate, 0.35, "empty lines"),
        _at_most("non_ascii", stats.non_ascii_rate, 0.05, "characters outside ASCII"),
        _at_most(
            "skipped_sources",
            stats.num_skipped_files - corpus.dropped_counts.get(EXCLUDED, 0),
            0,
            "source files without a document in the corpus, beside those that a recipe excludes",
        ),
        _at_most(
            "licences",
            unlicensed.documents if unlicensed else 0,
            0,
            "documents whose source names no licence",
        ),
    )
    if corpus.is_empty:
        return Readiness(
            status=Status.BLOCKED,
            summary=f"there is no text: {_why_empty(corpus)}",
            checks=(
                ReadinessCheck(
                    name="usable_documents",
                    status=Status.BLOCKED,
                    measured=0,
                    threshold=1,
                    message=f"no usable document: {_why_empty(corpus)}",
                ),
            ),
        )
    cautions = [check.name for check in checks if check.status is not Status.READY]
    return Readiness(
        status=Status.CAUTION if cautions else Status.READY,
        summary=f"look at {', '.join(cautions)}" if cautions else "every limit is kept",
        checks=checks,
    )


def _why_empty(corpus: Corpus) -> str:
    reasons = [f"{reason} {num:,}" for reason, num in sorted(corpus.dropped_counts.items())]
    return ", ".join(reasons) or ("the files hold nothing" if corpus.files else "no files were found")


def _at_least(name: str, measured: float, limit: float, what: str) -> ReadinessCheck:
    status = Status.READY if measured >= limit else Status.CAUTION
    return ReadinessCheck(
        name=name, status=status, measured=measured, threshold=limit, message=f"{measured:,} {what}"
    )


def _at_most(name: str, measured: float | None, limit: float, what: str) -> ReadinessCheck:
    if measured is None:
        return ReadinessCheck(
            name=name, status=Status.CAUTION, measured=None, threshold=limit, message="nobody looked for them"
        )
    status = Status.READY if measured <= limit else Status.CAUTION
    shown = f"{measured:,}" if limit == 0 else f"{measured:.1%}"
    return ReadinessCheck(
        name=name, status=status, measured=measured, threshold=limit, message=f"{shown} {what}"
    )
