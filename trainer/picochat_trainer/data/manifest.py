"""`corpus_manifest.json` and `corpus_report.md`: what lies in a corpus, for programs and for people.

No times and no absolute paths, so that equal input gives equal files.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from picochat_contract.configs import FileSource, Source

from picochat_trainer.data.corpus import Corpus, FileRecord
from picochat_trainer.data.readiness import judge_corpus

REPORTED_FILES: Final = 25  # rows of the report's table; the manifest has all


def corpus_manifest(corpus: Corpus, sources: Sequence[Source] = ()) -> dict[str, Any]:
    """Content of `corpus_manifest.json`."""
    readiness = judge_corpus(corpus)
    return {
        "format": "picochat-corpus",
        "version": 1,
        "corpus_sha256": corpus.sha256,
        "sources": [_source(source) for source in sources],
        "min_quality_score": corpus.min_quality_score,
        "stats": asdict(corpus.stats),
        "readiness": asdict(readiness),
        "documents": [asdict(document) for document in corpus.documents],
        "dropped": [asdict(document) for document in corpus.dropped],
        "files": [asdict(file) for file in corpus.files],
    }


def corpus_report(corpus: Corpus) -> str:
    """Content of `corpus_report.md`."""
    stats, readiness = corpus.stats, judge_corpus(corpus)
    lines = [
        "# Corpus report",
        "",
        f"Readiness: **{readiness.status}** ({readiness.summary}).",
        "",
        "| measure | value |",
        "|---|---:|",
        f"| documents | {stats.num_documents:,} of {stats.num_files:,} files |",
        f"| characters | {stats.num_characters:,} |",
        f"| bytes | {stats.num_bytes:,} |",
        f"| lines | {stats.num_lines:,} |",
        f"| duplicate documents (removed) | {stats.duplicate_document_rate:.1%} |",
        f"| repeated lines | {stats.duplicate_line_rate:.1%} |",
        f"| empty lines | {stats.empty_line_rate:.1%} |",
        f"| characters outside ASCII | {stats.non_ascii_rate:.1%} |",
        "",
        "## Checks",
        "",
        "| check | status | measured | limit |",
        "|---|---|---|---:|",
        *(f"| {c.name} | {c.status} | {c.message} | {c.threshold:g} |" for c in readiness.checks),
        "",
        "## Files",
        "",
        "| file | documents | characters | quality | result |",
        "|---|---:|---:|---:|---|",
        *(_file_row(file) for file in corpus.files[:REPORTED_FILES]),
    ]
    if len(corpus.files) > REPORTED_FILES:
        lines.append(f"\n{len(corpus.files) - REPORTED_FILES} more files are in the manifest.")
    if corpus.dropped:
        lines += ["", "## Left out", "", "| document | reason | quality | same as |", "|---|---|---:|---|"]
        lines += [
            f"| {_cell(d.path)} | {d.reason} | {d.quality_score} | {d.duplicate_of or ''} |"
            for d in corpus.dropped[:REPORTED_FILES]
        ]
        if len(corpus.dropped) > REPORTED_FILES:
            lines.append(f"\n{len(corpus.dropped) - REPORTED_FILES} more are in the manifest.")
    return "\n".join(lines) + "\n"


def _file_row(file: FileRecord) -> str:
    quality = "" if file.quality_score is None else f"{file.quality_score:g}"
    return (
        f"| {_cell(file.path)} | {file.num_documents} | {file.num_characters:,} | {quality} | {file.reason} |"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _source(source: Source) -> dict[str, Any]:
    raw = source.model_dump(mode="json")
    if isinstance(source, FileSource):
        # Only the last part: the rest of the path is about the machine, not about the data.
        raw["path"] = source.path.rstrip("/").rsplit("/", 1)[-1]
    return raw
