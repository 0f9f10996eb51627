"""Is this corpus worth training on? Simple limits on its statistics: ready, caution or blocked, with reasons."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from picochat_trainer.data.corpus import INCLUDED, Corpus

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
    measured: float
    threshold: float
    message: str


@dataclass(frozen=True, kw_only=True)
class Readiness:
    status: Status
    summary: str
    checks: tuple[ReadinessCheck, ...]


def judge_corpus(corpus: Corpus) -> Readiness:
    """Apply every limit; one that is passed over makes the corpus `caution`."""
    stats = corpus.stats
    sizes = [document.num_characters for document in corpus.documents]
    skipped = sum(file.reason != INCLUDED for file in corpus.files)
    checks = (
        _at_least("usable_documents", len(corpus.documents), 2, "documents; one cannot be held out whole"),
        _at_least("corpus_size", stats.num_characters, SMALL_CORPUS, "characters"),
        _at_most(
            "document_mix",
            max(sizes) / sum(sizes),
            DOMINANT_DOCUMENT,
            "of the text is one document",
        ),
        _at_most("duplicate_documents", stats.duplicate_document_rate, 0.05, "duplicates removed"),
        _at_most("duplicate_lines", stats.duplicate_line_rate, 0.15, "repeated lines"),
        _at_most("empty_lines", stats.empty_line_rate, 0.35, "empty lines"),
        _at_most("non_ascii", stats.non_ascii_rate, 0.05, "characters outside ASCII"),
        _at_most("skipped_sources", skipped, 0, "source files left out"),
    )
    cautions = [check.name for check in checks if check.status is not Status.READY]
    return Readiness(
        status=Status.CAUTION if cautions else Status.READY,
        summary=f"look at {', '.join(cautions)}" if cautions else "every limit is kept",
        checks=checks,
    )


def _at_least(name: str, measured: float, limit: float, what: str) -> ReadinessCheck:
    status = Status.READY if measured >= limit else Status.CAUTION
    return ReadinessCheck(
        name=name, status=status, measured=measured, threshold=limit, message=f"{measured:g} {what}"
    )


def _at_most(name: str, measured: float, limit: float, what: str) -> ReadinessCheck:
    status = Status.READY if measured <= limit else Status.CAUTION
    shown = f"{measured:g}" if limit == 0 else f"{measured:.1%}"
    return ReadinessCheck(
        name=name, status=status, measured=measured, threshold=limit, message=f"{shown} {what}"
    )
