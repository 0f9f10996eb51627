"""Writes a corpus with `corpus_manifest.json` and `corpus_report.md`: what lies in it, for programs and for people.

No times and no absolute paths, so that equal input gives equal files.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from picochat_contract.data_configs import FileSource, Source

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.data.corpus import Corpus, FileRecord, build_corpus
from picochat_trainer.data.readiness import judge_corpus
from picochat_trainer.data.sources import SourceFile

REPORTED_FILES: Final = 25  # rows of the report's table; the manifest has all


def write_corpus(
    files: Iterable[SourceFile],
    sources: Sequence[Source],
    *,
    min_score: float,
    corpus_path: Path,
    manifest_path: Path,
    report_path: Path,
) -> Corpus:
    """Build the corpus from `files` and write it with its manifest and report; nothing is left of a failed build."""
    partial = corpus_path.with_name(f".{corpus_path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as out:
            corpus = build_corpus(files, min_score=min_score, out=out)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(corpus_path)
    finally:
        partial.unlink(missing_ok=True)
    write_json(manifest_path, corpus_manifest(corpus, sources))
    write_text(report_path, corpus_report(corpus))
    return corpus


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
