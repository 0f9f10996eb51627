"""First pass over the sources: every document is read, cleaned, scored, signed and spooled, and the decisions made."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from picochat_contract.data_configs import CleaningConfig, Source
from picochat_contract.errors import ContractError

from picochat_trainer.data.building.batches import Batch, read_batches
from picochat_trainer.data.building.boilerplate import LineCounter
from picochat_trainer.data.building.raw import RawDocuments
from picochat_trainer.data.building.selection import Decisions, Selection
from picochat_trainer.data.building.spool import CleanTask, CountTask, clean_batch, count_lines, read_table
from picochat_trainer.data.building.tally import REPORTED_FILES
from picochat_trainer.data.dedup.near import NearIndex
from picochat_trainer.data.sources import SourceFile
from picochat_trainer.data.workers import Workers

PROGRESS_CHARACTERS: Final = 100_000_000
"""Read between two reports."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A batch on its way through the pass, without its documents where they are spooled already."""

    number: int
    documents: RawDocuments | Path
    sources: list[int]
    opened: list[tuple[int, SourceFile]]
    num_characters: int
    failure: tuple[int, ContractError] | None


@dataclass(frozen=True, kw_only=True)
class Spooled:
    """What the first pass leaves."""

    files: list[SourceFile]
    """The first REPORTED_FILES, in order."""
    num_files: int
    spools: list[Path]
    """One per batch."""
    decisions: Decisions
    full_sources: frozenset[int]
    num_sources: int
    cleaning: CleaningConfig
    min_score: float
    num_lines: int
    num_compared: int
    num_near_compared: int
    num_exact_duplicates: int

    def kept_texts(self) -> Iterator[str]:
        """Texts of the corpus in order, each once."""
        start = 0
        for path, end in zip(self.spools, self.decisions.batch_ends.tolist(), strict=True):
            kept = np.flatnonzero(self.decisions.copies[start:end])
            if len(kept):
                yield from read_table(path)["text"].take(kept).to_pylist()
            start = end


def spool_documents(
    files: Iterable[SourceFile],
    sources: Sequence[Source],
    cleaning: CleaningConfig,
    min_score: float,
    work_dir: Path,
    pool: Workers,
    progress: Callable[[int, int], None] | None,
) -> Spooled:
    """Read all of `files`; temporary files go to `work_dir`."""
    near = NearIndex(cleaning.near_threshold, work_dir / "near") if cleaning.near_duplicates else None
    try:
        selection = Selection(sources, cleaning, near)
        reported: list[SourceFile] = []
        spools: list[Path] = []
        num_files = num_characters = next_report = 0
        readings, frequent = _readings(files, cleaning, selection, work_dir, pool)
        weights = tuple(source.weight for source in sources)

        def task(reading: Reading) -> CleanTask:
            return CleanTask(
                documents=reading.documents,
                config=cleaning,
                min_score=min_score,
                weights=weights,
                spool=work_dir / f"batch-{reading.number:06d}.arrow",
                frequent=frequent,
            )

        for reading, cleaned in pool.map(clean_batch, readings, task=task, size_bytes=_size_bytes):
            selection.add(reading.sources, cleaned)
            spools.append(task(reading).spool)
            reported += [file for number, file in reading.opened if number < REPORTED_FILES]
            num_files += len(reading.opened)
            if reading.failure is not None:
                source, error = reading.failure
                if not selection.is_used_up(source):
                    raise error
                selection.leave_rest(source)
            num_characters += reading.num_characters
            if progress is not None and num_characters >= next_report:
                progress(selection.num_rows, num_characters)
                next_report = num_characters + PROGRESS_CHARACTERS
        return Spooled(
            files=reported,
            num_files=num_files,
            spools=spools,
            decisions=selection.finish(),
            full_sources=selection.full_sources,
            num_sources=len(sources),
            cleaning=cleaning,
            min_score=min_score,
            num_lines=selection.num_lines,
            num_compared=selection.num_compared,
            num_near_compared=selection.num_near_compared,
            num_exact_duplicates=selection.num_exact_duplicates,
        )
    finally:
        if near is not None:
            near.close()


def _size_bytes(reading: Reading) -> int:
    return reading.num_characters


def _readings(
    files: Iterable[SourceFile],
    cleaning: CleaningConfig,
    selection: Selection,
    work_dir: Path,
    pool: Workers,
) -> tuple[Iterable[Reading], Path | None]:
    """The batches to clean and, where lines are to be removed, the file with their digests.

    To know these lines every document is read before the first is cleaned, also those behind a limit.
    """
    if not cleaning.boilerplate_documents:
        batches = read_batches(files, limited=selection.limited, is_full=selection.is_used_up)
        return map(_reading, batches), None
    counter, readings = LineCounter(work_dir), []
    batches = read_batches(files, limited=selection.limited, is_full=lambda source: False)

    def task(batch: Batch) -> CountTask:
        return CountTask(documents=batch.documents, config=cleaning, spool=_raw_path(work_dir, batch))

    for batch, digests in pool.map(count_lines, batches, task=task, size_bytes=lambda b: b.num_characters):
        counter.add(digests)
        readings.append(_reading(batch, _raw_path(work_dir, batch)))
    frequent = work_dir / "frequent.npy"
    np.save(frequent, counter.frequent(cleaning.boilerplate_documents))
    return readings, frequent


def _raw_path(work_dir: Path, batch: Batch) -> Path:
    return work_dir / f"raw-{batch.number:06d}.arrow"


def _reading(batch: Batch, spool: Path | None = None) -> Reading:
    return Reading(
        number=batch.number,
        documents=spool or batch.documents,
        sources=batch.documents.sources,
        opened=batch.opened,
        num_characters=batch.num_characters,
        failure=batch.failure,
    )
