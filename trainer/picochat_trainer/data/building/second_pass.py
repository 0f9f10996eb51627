"""Second pass: the spooled documents that stay become shards, and everything about them is summed up."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from picochat_contract import layout
from picochat_contract.data_configs import split_suffix

from picochat_trainer.data.building.first_pass import Spooled
from picochat_trainer.data.building.line_sample import LineSample, merged, sample_bits
from picochat_trainer.data.building.shards import (
    DROPPED_SCHEMA,
    SHARD_BYTES,
    Part,
    ShardFacts,
    ShardTask,
    write_shard,
)
from picochat_trainer.data.building.tally import FileTally, Tally
from picochat_trainer.data.cleaning.reasons import Reason
from picochat_trainer.data.facts import INCLUDED, Corpus, CorpusStats, FileRecord, ShardRecord
from picochat_trainer.data.sources import SourceFile
from picochat_trainer.data.workers import Workers

MAX_RECORDS: Final = 10_000
"""Documents, and dropped ones, that a manifest lists."""
MAX_EXAMPLES: Final = 3
SEPARATOR_CHARACTERS: Final = 2
_DROPPED: Final = PurePosixPath(layout.DROPPED).name


@dataclass(kw_only=True)
class Gathered:
    """Sums over all shards."""

    spooled: Spooled
    sample_bits: int
    tally: Tally = field(default_factory=Tally)
    shards: list[ShardRecord] = field(default_factory=list)
    shard_paths: list[Path] = field(default_factory=list)
    """Where the shards lie while the build runs."""
    documents: list[dict[str, Any]] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lines: LineSample = field(default_factory=lambda: merged([]))

    @property
    def num_text_bytes(self) -> int:
        """Of all documents joined by blank lines, with a final line end."""
        return self.tally.num_bytes + self._num_separators

    @property
    def num_text_characters(self) -> int:
        return self.tally.num_characters + self._num_separators

    @property
    def _num_separators(self) -> int:
        return max(0, SEPARATOR_CHARACTERS * (self.tally.num_documents - 1) + 1)

    def add(self, facts: ShardFacts, path: Path | None) -> None:
        self.tally.add(facts.tally)
        self.documents += facts.records[: MAX_RECORDS - len(self.documents)]
        self.lines = merged([self.lines, facts.lines])
        if len(self.dropped) < MAX_RECORDS:
            self.dropped += facts.dropped.slice(0, MAX_RECORDS - len(self.dropped)).to_pylist()
        for reason in facts.tally.dropped:
            known = self.examples.setdefault(reason, [])
            if len(known) < MAX_EXAMPLES:
                rows = facts.dropped.filter(_equals(facts.dropped["reason"], reason))
                known += rows.slice(0, MAX_EXAMPLES - len(known)).to_pylist()
        if path is not None and facts.sha256 is not None:
            self.shard_paths.append(path)
            self.shards.append(
                ShardRecord(
                    path=f"{layout.CORPUS_DIR}/{path.name}",
                    sha256=facts.sha256,
                    size_bytes=facts.size_bytes,
                    num_documents=facts.tally.num_documents,
                    num_characters=facts.tally.num_characters,
                    num_bytes=facts.tally.num_bytes,
                )
            )

    def corpus(self, *, text: str | None, text_sha256: str | None) -> Corpus:
        spooled, tally = self.spooled, self.tally
        return Corpus(
            text=text,
            text_sha256=text_sha256,
            shards=tuple(self.shards),
            cleaning=spooled.cleaning,
            min_score=spooled.min_score,
            stats=self._stats(),
            counters=tally.counters,
            labels=tally.labels,
            licenses=tally.licenses,
            source_shares=tally.sources,
            full_sources=spooled.full_sources,
            scores=tally.scores,
            flags=tally.flags,
            documents=tuple(self._spans(has_text=text is not None)),
            dropped=tuple(self.dropped),
            dropped_counts=tally.dropped,
            dropped_examples={reason: tuple(rows) for reason, rows in self.examples.items()},
            files=tuple(
                _file_record(
                    file,
                    tally.files.get(number, FileTally()),
                    is_full=file.source in spooled.full_sources,
                )
                for number, file in enumerate(spooled.files)
            ),
        )

    def _spans(self, *, has_text: bool) -> Iterator[dict[str, Any]]:
        """The documents' records with their places in the text file, characters."""
        start = 0
        for record in self.documents:
            end = start + record["num_characters"]
            places = (
                {"char_start": start, "char_end": end}
                if has_text
                else dict.fromkeys(("char_start", "char_end"))
            )
            yield {"document_id": record["document_id"], **places, **record}
            start = end + SEPARATOR_CHARACTERS

    def _stats(self) -> CorpusStats:
        spooled, tally, decisions = self.spooled, self.tally, self.spooled.decisions
        cleaning = spooled.cleaning
        num_different = int((decisions.copies > 0).sum())
        num_removed = tally.num_read - num_different
        num_exact, num_near = tally.dropped[Reason.EXACT_DUPLICATE], tally.dropped[Reason.NEAR_DUPLICATE]
        num_lines = tally.num_lines + max(0, tally.num_documents - 1)  # blank ones between documents
        return CorpusStats(
            num_files=spooled.num_files,
            num_skipped_files=spooled.num_files - tally.num_files_kept,
            num_read=tally.num_read,
            num_documents=tally.num_documents,
            num_removed=num_removed,
            num_exact_removed=num_exact,
            num_near_removed=num_near,
            num_other_removed=num_removed - num_exact - num_near,
            num_characters=self.num_text_characters,
            num_bytes=self.num_text_bytes,
            num_lines=num_lines,
            average_document_chars=_share(tally.num_characters, tally.num_documents),
            largest_document_share=_share(tally.largest_document, tally.num_characters),
            duplicate_document_rate=_share(spooled.num_exact_duplicates, spooled.num_compared),
            exact_left=_share(int((decisions.repeats & (decisions.copies > 0)).sum()), num_different),
            near_duplicate_document_rate=(
                _share(num_near, spooled.num_near_compared) if cleaning.near_duplicates else None
            ),
            near_duplicate_document_pairs=num_near,
            near_duplicate_documents_checked=spooled.num_near_compared,
            near_left=0.0 if cleaning.near_duplicates else None,
            duplicate_line_rate=self.lines.repeated_share,
            duplicate_line_sample=2.0**-self.sample_bits,
            non_ascii_rate=_share(tally.num_non_ascii, self.num_text_characters),
            empty_line_rate=_share(tally.num_lines - tally.num_filled_lines, tally.num_lines),
        )


def gather(spooled: Spooled, pool: Workers, folder: Path | None) -> Gathered:
    """Write the shards and the list of what was dropped to `folder`, or only look where there is none."""
    gathered = Gathered(spooled=spooled, sample_bits=sample_bits(spooled.num_lines))
    dropped = (
        None if folder is None else pq.ParquetWriter(folder / _DROPPED, DROPPED_SCHEMA, compression="zstd")
    )
    try:
        tasks = _tasks(spooled, gathered.sample_bits, folder)
        for task, facts in pool.map(write_shard, tasks, task=lambda task: task, size_bytes=_size_bytes):
            gathered.add(facts, task.path)
            if dropped is not None:
                dropped.write_table(facts.dropped)
    finally:
        if dropped is not None:
            dropped.close()
    return gathered


def _tasks(spooled: Spooled, bits: int, folder: Path | None) -> Iterator[ShardTask]:
    """Whole batches until a shard is full."""
    decisions = spooled.decisions
    targets = decisions.target_documents
    parts: list[Part] = []
    start = num_bytes = num_shards = num_documents = 0
    batches = list(zip(spooled.spools, decisions.batch_ends.tolist(), decisions.batch_bytes, strict=True))
    for number, (spool, end, size) in enumerate(batches, start=1):
        rows = slice(start, end)
        parts.append(
            Part(
                spool=spool,
                actions=decisions.actions[rows],
                copies=decisions.copies[rows],
                duplicates=decisions.duplicates[rows],
                first_document=decisions.first_document[rows],
                target_documents=targets[rows],
                similarities=decisions.similarities[rows],
            )
        )
        start, num_bytes = end, num_bytes + size
        if num_bytes >= SHARD_BYTES or number == len(batches):
            path = folder / f"part-{num_shards:05d}.parquet" if folder is not None and num_bytes else None
            missing = max(0, MAX_RECORDS - num_documents)
            yield ShardTask(parts=tuple(parts), path=path, sample_bits=bits, num_records=missing)
            num_documents += sum(int(part.copies.sum()) for part in parts)
            num_shards += path is not None
            parts, num_bytes = [], 0


def _size_bytes(task: ShardTask) -> int:
    return sum(part.spool.stat().st_size for part in task.parts)


def _file_record(file: SourceFile, tally: FileTally, *, is_full: bool) -> FileRecord:
    reasons = ", ".join(sorted(tally.reasons)) or (Reason.LIMIT if is_full else Reason.EMPTY_TEXT)
    kind = {".pdf": "_pdf", ".docx": "_docx"}.get(split_suffix(file.path)[0], "")
    return FileRecord(
        path=file.path,
        extension=file.extension,
        label=file.label,
        license=file.license,
        source=file.source,
        included=tally.num_documents > 0,
        reason=INCLUDED + kind if tally.num_documents else file.reason or reasons,
        num_documents=tally.num_documents,
        num_characters=tally.num_characters,
        num_lines=tally.num_lines,
        quality_score=round(tally.score_sum / tally.num_read, 1) if tally.num_read else None,
        quality_flags=tuple(sorted(tally.flags)),
    )


def _equals(column: Any, value: str) -> Any:
    return pc.equal(column, pa.scalar(value))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
