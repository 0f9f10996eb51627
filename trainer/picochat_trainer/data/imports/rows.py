"""Imports rows: one Parquet record per document, in shards that are complete or not there."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import file_sha256, sync_folder
from picochat_trainer.data.imports.hub import DatasetRequest, HubRows, open_dataset
from picochat_trainer.data.imports.journal import Journal, RowRecord, ShardRecord
from picochat_trainer.data.sources.records import SHOWN_FIELDS, select

WRITTEN: Final = "written"
MISSING_COLUMN: Final = "missing_text_column"
NOT_STRING: Final = "text_column_not_string"
TOO_SHORT: Final = "below_min_chars"
INVALID_UNICODE: Final = "invalid_unicode"
REPORTED_ROWS: Final = 10_000
"""The report lists the first rows of the split; of the rest it holds counts."""
SHARD: Final = re.compile(r"^\.?shard-\d{6}\.parquet(\.partial)?$")
_READ_ERRORS: Final = (OSError, ValueError, RuntimeError, pa.ArrowException)


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What to import and where to."""

    dataset: DatasetRequest
    documents_dir: Path
    """Gets `shard-NNNNNN.parquet` with the columns text and row; shards of an import before are removed."""
    text_column: str = "text"
    """Dots go into nested objects."""
    max_rows: int = 1000
    """Rows to read from the beginning of the split; 0 reads all."""
    min_chars: int = 20
    """Shorter texts are skipped; white space around the text does not count."""
    document_shard_rows: int = 1000
    """Documents per shard; an interrupted import goes on after the last whole one."""
    resume: bool = True


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Everything that a report says about a complete import."""

    request: ImportRequest
    revision: str | None
    license: str | None
    columns: tuple[str, ...]
    shards: tuple[ShardRecord, ...]
    journal: Journal
    """Closed by the caller once all else that belongs to the import is written."""

    @property
    def rows_seen(self) -> int:
        return self.journal.rows_seen

    @property
    def num_documents(self) -> int:
        return sum(shard.num_documents for shard in self.shards)

    @property
    def num_characters(self) -> int:
        return sum(shard.num_characters for shard in self.shards)

    @property
    def skipped(self) -> dict[str, int]:
        return dict(sum((Counter(shard.skipped) for shard in self.shards), Counter[str]()))

    @property
    def shard_paths(self) -> tuple[Path, ...]:
        return tuple(self.request.documents_dir / shard.path for shard in self.shards if shard.path)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Row number and text of every document, in order; memory holds a batch."""
        for path in self.shard_paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=256):
                    yield from zip(batch["row"].to_pylist(), batch["text"].to_pylist(), strict=True)

    def require_documents(self) -> None:
        """Raise `corpus_empty` where no row gave a document."""
        if self.num_documents:
            return
        skipped = ", ".join(f"{number} {reason}" for reason, number in self.skipped.items()) or "no rows"
        columns = ", ".join(map(repr, self.columns[:SHOWN_FIELDS])) or "not known"
        raise ContractError(
            Code.CORPUS_EMPTY,
            f"none of the {self.rows_seen} rows of {self.request.dataset.dataset!r} gave a document ({skipped}); its "
            f"columns are {columns}; name the one with the text by --text-column, or lower --min-chars",
            param="--text-column",
        )


def import_rows(request: ImportRequest, on_rows: Callable[[int], None] = lambda _: None) -> Imported:
    """Read rows into shards, from where an interrupted import stopped; `on_rows` hears how many were read so far."""
    rows = open_dataset(request.dataset)
    folder = request.documents_dir
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal.open(folder, _identity(request, rows), resume=request.resume)
    _remove_stale_shards(folder, keep={shard.path for shard in journal.shards})
    _Import(request, rows, journal, on_rows).run()
    return Imported(
        request=request,
        revision=rows.revision,
        license=rows.license,
        columns=rows.columns,
        shards=tuple(journal.shards),
        journal=journal,
    )


def _identity(request: ImportRequest, rows: HubRows) -> dict[str, Any]:
    """What must be equal for two calls to be one import. The number of rows is not: it may be raised."""
    dataset = request.dataset
    return {
        "dataset": dataset.dataset,
        "config": dataset.config,
        "split": dataset.split,
        "data_files": list(dataset.data_files),
        "content": rows.identity,
        "streaming": dataset.streaming,
        "text_column": request.text_column,
        "min_chars": request.min_chars,
        "document_shard_rows": request.document_shard_rows,
    }


def _remove_stale_shards(folder: Path, keep: set[str | None]) -> None:
    for path in folder.iterdir():
        if SHARD.fullmatch(path.name) and path.name not in keep:
            path.unlink()


@dataclass
class _Stretch:
    """Rows since the last shard."""

    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    records: list[RowRecord] = field(default_factory=list)


@dataclass
class _Import:
    request: ImportRequest
    dataset: HubRows
    journal: Journal
    on_rows: Callable[[int], None]
    stretch: _Stretch = field(default_factory=_Stretch)

    def run(self) -> None:
        done = seen = self.journal.rows_seen
        limit = self.request.max_rows
        if limit and done >= limit:
            self._require_limit(done)
            return
        try:
            with self.dataset.after(done, self.journal.position) as rows:
                for seen, row in enumerate(islice(rows, limit - done if limit else None), start=done + 1):
                    self._add(seen - 1, row)
                    if len(self.stretch.texts) == self.request.document_shard_rows:
                        self._finish(seen)
        except _READ_ERRORS as error:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{self.request.dataset}, after row {seen}: {error}; the same command goes on after row "
                f"{self.journal.rows_seen}",
                param="dataset",
            ) from error
        if seen > self.journal.rows_seen:
            self._finish(seen)

    def _require_limit(self, done: int) -> None:
        if done > self.request.max_rows:
            raise ContractError(
                Code.INVALID_VALUE,
                f"the unfinished import in {self.request.documents_dir} has read {done} rows already, more than "
                f"--max-rows {self.request.max_rows}; raise that, or start again with --no-resume",
                param="--max-rows",
            )

    def _add(self, number: int, row: dict[str, Any]) -> None:
        reason, text = _judge(row, self.request.text_column, self.request.min_chars)
        if reason == WRITTEN:
            self.stretch.rows.append(number)
            self.stretch.texts.append(text)
        else:
            self.stretch.skipped[reason] += 1
        if number < REPORTED_ROWS:
            self.stretch.records.append(RowRecord(row=number, reason=reason, num_characters=len(text)))

    def _finish(self, seen: int) -> None:
        """Put the shard of this stretch in place, then say so in the journal."""
        stretch, self.stretch = self.stretch, _Stretch()
        name = f"shard-{sum(shard.path is not None for shard in self.journal.shards):06d}.parquet"
        digest = _write_shard(self.request.documents_dir / name, stretch) if stretch.texts else None
        self.journal.add(
            ShardRecord(
                path=name if digest else None,
                num_documents=len(stretch.texts),
                num_characters=sum(map(len, stretch.texts)),
                sha256=digest,
                rows_seen=seen,
                skipped=dict(stretch.skipped),
                rows=tuple(stretch.records),
                position=self.dataset.position(),
            )
        )
        self.on_rows(seen)


def _judge(row: dict[str, Any], column: str, min_chars: int) -> tuple[str, str]:
    """What becomes of a row, and its text (empty where it has none)."""
    try:
        text = select(row, column)
    except KeyError:
        return MISSING_COLUMN, ""
    if not isinstance(text, str):
        return NOT_STRING, ""
    if len(text.strip()) < min_chars:
        return TOO_SHORT, text
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON escapes can hold and UTF-8 cannot
        return INVALID_UNICODE, text
    return WRITTEN, text


def _write_shard(path: Path, stretch: _Stretch) -> str:
    """Write the documents and return the sha256 of the file."""
    partial = path.with_name(f".{path.name}.partial")
    table = pa.table(
        {"text": pa.array(stretch.texts, pa.large_string()), "row": pa.array(stretch.rows, pa.int64())}
    )
    with partial.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_folder(path.parent)
    return file_sha256(path)
