"""`corpus_report.md`: what lies in a corpus, for people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from picochat_contract.data_configs import Source

from picochat_trainer.data.budget import BATCH_ROWS, suggest_budget
from picochat_trainer.data.building.tally import Share
from picochat_trainer.data.cleaning.reasons import Reason
from picochat_trainer.data.facts import Corpus, CorpusStats, FileRecord
from picochat_trainer.data.manifest import described_source
from picochat_trainer.data.readiness import judge_corpus

REPORTED_ROWS: Final = 25  # of a table; the manifest and dropped.parquet have more
BAR: Final = 40  # characters of the longest bar of a histogram
EXPLANATIONS: Final[Mapping[str, str]] = {
    Reason.EMPTY_TEXT: "nothing was left after cleaning",
    Reason.TOO_SHORT: "fewer characters than min_characters",
    Reason.BELOW_MIN_SCORE: "quality score below min_score",
    Reason.LANGUAGE: "not one of the wanted languages, or not surely enough",
    Reason.PII: "holds personal data",
    Reason.EXACT_DUPLICATE: "the text of an earlier document",
    Reason.NEAR_DUPLICATE: "nearly an earlier document",
    Reason.WEIGHT: "drawn out by its source's weight",
    Reason.LIMIT: "the first document over its source's limit; the rest of that source was not read",
}
COUNTED: Final[Mapping[str, str]] = {
    "num_control": "control characters",
    "num_replacement": "replacement characters (U+FFFD)",
    "num_zero_width": "zero-width characters",
    "num_repeated_lines": "lines removed from runs of equal lines",
    "num_boilerplate_lines": "boilerplate lines removed",
    "num_email": "e-mail addresses",
    "num_ip": "IP addresses",
    "num_phone": "phone numbers",
    "num_card": "card numbers",
    "num_iban": "bank account numbers (IBAN)",
}


def corpus_report(corpus: Corpus, sources: Sequence[Source]) -> str:
    """The report as Markdown."""
    readiness = judge_corpus(corpus)
    sections = [
        ["# Corpus report", "", f"Readiness: **{readiness.status}** ({readiness.summary})."],
        _table(("measure", "value"), _measures(corpus.stats)),
        ["## Checks"],
        _table(
            ("check", "status", "measured", "limit"),
            ((c.name, c.status, c.message, f"{c.threshold:g}") for c in readiness.checks),
        ),
        *_removed(corpus),
        *_pairs(corpus),
        ["## Cleaning"],
        _table(
            ("counted in all documents", "number"),
            ((COUNTED[k], "not looked for" if v is None else f"{v:,}") for k, v in corpus.counted.items()),
        ),
        ["## Licences"],
        _shares("licence", corpus.licenses, "no licence is named"),
        ["## Labels"],
        _shares("label", corpus.labels, "no label"),
        ["## Sources"],
        _table(("source", "documents", "characters", "limit"), _sources(corpus, sources)),
        ["## Quality"],
        _histogram(corpus.scores),
        _table(("flag", "documents"), ((flag, f"{num:,}") for flag, num in sorted(corpus.flags.items()))),
        *_files(corpus),
        *_budget(corpus),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _measures(stats: CorpusStats) -> Iterable[tuple[str, str]]:
    near = stats.near_duplicate_document_rate
    sampled = (
        "" if stats.duplicate_line_sample == 1 else f" (of {stats.duplicate_line_sample:.2%} of the lines)"
    )
    return (
        ("documents", f"{stats.num_documents:,} of {stats.num_files:,} files"),
        ("documents that came in", f"{stats.num_read:,}"),
        ("documents removed", f"{stats.num_removed:,}"),
        ("characters", f"{stats.num_characters:,}"),
        ("bytes", f"{stats.num_bytes:,}"),
        ("lines", f"{stats.num_lines:,}"),
        ("characters per document", f"{stats.average_document_chars:,.0f}"),
        ("exact duplicates among what passed the filters", f"{stats.duplicate_document_rate:.1%}"),
        ("near duplicates among the rest", "not looked for" if near is None else f"{near:.1%}"),
        ("repeated lines", f"{stats.duplicate_line_rate:.1%}{sampled}"),
        ("empty lines", f"{stats.empty_line_rate:.1%}"),
        ("characters outside ASCII", f"{stats.non_ascii_rate:.1%}"),
    )


def _removed(corpus: Corpus) -> list[list[str]]:
    if not corpus.dropped_counts:
        return []
    rows = (
        (
            reason,
            f"{num:,}",
            EXPLANATIONS.get(reason, "the file was not read"),
            "; ".join(_example(row) for row in corpus.dropped_examples[reason]),
        )
        for reason, num in sorted(corpus.dropped_counts.items(), key=lambda item: (-item[1], item[0]))
    )
    return [["## Left out"], _table(("reason", "number", "meaning", "examples"), rows)]


def _example(row: Mapping[str, Any]) -> str:
    sample = (row["sample"] or "").split("\n")[0][:40]
    return f"{row['path']} ({sample})" if sample else str(row["path"])


def _pairs(corpus: Corpus) -> list[list[str]]:
    paths = {row["document_id"]: row["path"] for row in corpus.documents}
    pairs = [row for row in corpus.dropped if row["reason"] == Reason.NEAR_DUPLICATE][:REPORTED_ROWS]
    if not pairs:
        return []
    rows = (
        (
            row["path"],
            row["duplicate_of"] or "",
            paths.get(row["duplicate_of"], ""),
            f"{row['similarity']:.3f}",
        )
        for row in pairs
    )
    more = corpus.dropped_counts[Reason.NEAR_DUPLICATE] - len(pairs)
    return [
        ["## Near duplicates"],
        _table(("removed", "kept", "path of the kept one", "similarity"), rows),
        [f"{more:,} more are in dropped.parquet."] if more else [],
    ]


def _shares(name: str, shares: Mapping[str | None, Share], unnamed: str) -> list[str]:
    rows = (
        (key or unnamed, f"{share.documents:,}", f"{share.characters:,}")
        for key, share in sorted(shares.items(), key=lambda item: (-item[1].characters, item[0] or ""))
    )
    return _table((name, "documents", "characters"), rows)


def _sources(corpus: Corpus, sources: Sequence[Source]) -> Iterable[tuple[str, ...]]:
    for index, source in enumerate(sources):
        described = described_source(source)
        name = source.label or described.get("path") or described.get("name") or source.type
        share = corpus.source_shares.get(index, Share())
        limit = "reached" if index in corpus.full_sources else ""
        yield str(name), f"{share.documents:,}", f"{share.characters:,}", limit


def _histogram(scores: Mapping[int, int]) -> list[str]:
    if not scores:
        return []
    longest = max(scores.values())
    rows = (f"{tens:>3}  {'#' * -(-BAR * num // longest)} {num:,}" for tens, num in sorted(scores.items()))
    return ["Documents by quality score, in tens:", "", "```text", *rows, "```"]


def _files(corpus: Corpus) -> list[list[str]]:
    shown = corpus.files[:REPORTED_ROWS]
    more = corpus.stats.num_files - len(shown)
    return [
        ["## Files"],
        _table(
            ("file", "documents", "characters", "lines", "quality", "flags", "result"),
            (_file(f) for f in shown),
        ),
        [f"{more:,} more files; the manifest lists {len(corpus.files):,}."] if more else [],
    ]


def _file(file: FileRecord) -> tuple[str, ...]:
    quality = "" if file.quality_score is None else f"{file.quality_score:g}"
    counts = (f"{file.num_documents:,}", f"{file.num_characters:,}", f"{file.num_lines:,}")
    return file.path, *counts, quality, ", ".join(file.quality_flags), file.reason


def _budget(corpus: Corpus) -> list[list[str]]:
    budget = suggest_budget(corpus.stats)
    if not budget.training_command:
        return []
    text = (
        f"About {budget.estimated_tokens:,} tokens (at {budget.tokens_per_character:g} per character): "
        f"{budget.estimated_windows:,} windows of {budget.suggested_context_size:,} tokens. A first run could take "
        f"{budget.suggested_base_steps:,} steps of {BATCH_ROWS} rows:"
    )
    return [["## Budget"], [text], ["```text", budget.training_command, "```"]]


def _table(head: tuple[str, ...], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *body] if body else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
