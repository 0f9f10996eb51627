"""Second pass: what was kept of some batches becomes one Parquet shard; what was dropped, rows of a list; both are
summed up. Runs in worker processes. A preview does the same without writing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.building.line_sample import LineSample, merged
from picochat_trainer.data.building.selection import REASONS, Action
from picochat_trainer.data.building.spool import COUNTERS, read_table
from picochat_trainer.data.building.tally import REPORTED_FILES, FileTally, Share, Tally
from picochat_trainer.data.cleaning.lines import filled_lines, line_digests
from picochat_trainer.data.cleaning.reasons import Reason

SHARD_BYTES: Final = 64_000_000
"""Of text; a shard is full with the batch that reaches it."""
UNREAD: Final = "unread"
"""Stands for a reason inside this module only: such rows are in no list."""
_CAME_IN: Final = frozenset(set(Reason) - {Reason.LIMIT})
"""What can befall a document that was read; other reasons are those of files that were not."""
COPIED: Final = (
    "path",
    "label",
    "license",
    "source",
    "quality_score",
    "quality_flags",
    "num_characters",
    "num_bytes",
    "num_lines",
    "sha256",
)
DROPPED_SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("source", pa.int32()),
        pa.field("reason", pa.string()),
        pa.field("quality_score", pa.int16()),
        pa.field("num_characters", pa.int64()),
        pa.field("duplicate_of", pa.string()),
        pa.field("similarity", pa.float32()),
        pa.field("sample", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A spool file and the decisions about its rows."""

    spool: Path
    actions: NDArray[np.uint8]
    copies: NDArray[np.uint8]
    duplicates: NDArray[np.int32]
    first_document: NDArray[np.int64]
    target_documents: NDArray[np.int64]
    similarities: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    parts: tuple[Part, ...]
    path: Path | None
    """Where the shard goes; None where nothing of the parts is kept, or nothing is to be written."""
    sample_bits: int
    num_records: int
    """How many documents to describe one by one."""


@dataclass(frozen=True, kw_only=True)
class ShardFacts:
    tally: Tally
    dropped: Any
    """Table of DROPPED_SCHEMA."""
    records: list[dict[str, Any]]
    """The first documents, as the manifest lists them."""
    lines: LineSample
    sha256: str | None
    size_bytes: int


def write_shard(task: ShardTask) -> ShardFacts:
    """Write the shard of a task, or only look, and sum up its documents."""
    tally, dropped, samples = Tally(), [], []
    records: list[dict[str, Any]] = []
    writer = None
    try:
        for part in task.parts:
            rows = read_table(part.spool)
            reasons = _reasons(rows, part)
            dropped.append(_dropped(rows, part, reasons))
            tally.add(_tally(rows, part, reasons))
            if not part.copies.any():
                continue
            documents = _documents(rows, part)
            missing = task.num_records - len(records)
            if missing > 0:
                records += (
                    documents.drop_columns(["text", "num_bytes", "duplicates"]).slice(0, missing).to_pylist()
                )
            samples.append(_line_sample(rows, part, task.sample_bits))
            if task.path is not None:
                if writer is None:
                    writer = pq.ParquetWriter(
                        task.path, documents.schema, compression="zstd", use_dictionary=["label", "license"]
                    )
                writer.write_table(documents)
    finally:
        if writer is not None:
            writer.close()
    return ShardFacts(
        tally=tally,
        dropped=pa.concat_tables(dropped),
        records=records,
        lines=merged(samples),
        sha256=file_sha256(task.path) if task.path is not None else None,
        size_bytes=task.path.stat().st_size if task.path is not None else 0,
    )


def document_ids(places: NDArray[np.int64]) -> Any:
    """`doc-000001` for place 0; null for a negative place."""
    digits = pc.utf8_lpad(pc.cast(pa.array(places + 1), pa.string()), 6, "0")
    ids = pc.binary_join_element_wise("doc-", digits, "")
    return pc.if_else(pa.array(places >= 0), ids, pa.scalar(None, pa.string()))


def _documents(rows: Any, part: Part) -> Any:
    """Rows of the corpus: each kept document as often as its weight says."""
    chosen = np.repeat(np.arange(rows.num_rows), part.copies)
    kept = rows.take(pa.array(chosen))
    # the copies of a document stand behind one another
    earlier = np.arange(len(chosen)) - np.searchsorted(chosen, chosen)
    columns = {
        "document_id": document_ids(part.first_document[chosen] + earlier),
        "text": kept["text"],
        **{name: kept[name] for name in COPIED},
        "duplicates": pa.array(part.duplicates[chosen], pa.int64()),
    }
    return pa.table(columns)


def _dropped(rows: Any, part: Part, reasons: Sequence[str | None]) -> Any:
    chosen = np.array([row for row, reason in enumerate(reasons) if reason not in (None, UNREAD)], np.int64)
    gone = rows.take(pa.array(chosen))
    is_near = part.actions[chosen] == Action.NEAR_DUPLICATE
    return pa.table(
        {
            "path": gone["path"],
            "source": gone["source"],
            "reason": [reasons[row] for row in chosen.tolist()],
            "quality_score": gone["quality_score"],
            "num_characters": gone["num_characters"],
            "duplicate_of": document_ids(part.target_documents[chosen]),
            "similarity": pa.array(part.similarities[chosen], mask=~is_near),
            "sample": gone["sample"],
        },
        schema=DROPPED_SCHEMA,
    )


def _line_sample(rows: Any, part: Part, bits: int) -> LineSample:
    """Each document counts once, however many copies of it there are."""
    texts = rows["text"].take(pa.array(np.flatnonzero(part.copies))).to_pylist()
    return LineSample.of(line_digests([line for text in texts for line in filled_lines(text)]), bits)


def _tally(rows: Any, part: Part, reasons: Sequence[str | None]) -> Tally:
    """Sums over the rows; `reasons` says of each row why it is dropped."""

    def column(name: str) -> NDArray[np.int64]:
        return rows[name].to_numpy()

    copies = part.copies.astype(np.int64)
    characters, scores, kept = column("num_characters"), column("quality_score"), part.copies > 0
    came_in = np.array([reason is None or reason in _CAME_IN for reason in reasons], np.bool_)
    files = np.unique(column("file")[kept])
    tens, counts = np.unique(scores[kept] // 10 * 10, return_counts=True)
    tally = Tally(
        num_documents=int(copies.sum()),
        num_characters=int(copies @ characters),
        num_bytes=int(copies @ column("num_bytes")),
        num_lines=int(copies @ column("num_lines")),
        num_filled_lines=int(copies @ column("num_filled_lines")),
        num_non_ascii=int(copies @ column("num_non_ascii")),
        largest_document=int(characters[kept].max(initial=0)),
        num_read=int(came_in.sum()),
        scores=Counter(dict(zip(tens.tolist(), counts.tolist(), strict=True))),
        flags=Counter(
            flag for flags in rows["quality_flags"].filter(pa.array(kept)).to_pylist() for flag in flags
        ),
        counters=Counter({name: int(column(name)[came_in].sum()) for name in COUNTERS}),
        dropped=Counter(reason for reason in reasons if reason not in (None, UNREAD)),
        num_files_kept=len(files),
        first_file_kept=int(files[0]) if len(files) else -1,
        last_file_kept=int(files[-1]) if len(files) else -1,
    )
    for name, shares in (("label", tally.labels), ("license", tally.licenses), ("source", tally.sources)):
        for key, num, size in zip(rows[name].to_pylist(), copies.tolist(), characters.tolist(), strict=True):
            if num:
                shares.setdefault(key, Share()).add(Share(documents=num, characters=num * size))
    if column("file").min(initial=REPORTED_FILES) < REPORTED_FILES:
        _add_files(tally.files, rows, part, reasons, came_in)
    return tally


def _add_files(
    files: dict[int, FileTally],
    rows: Any,
    part: Part,
    reasons: Sequence[str | None],
    came_in: NDArray[np.bool_],
) -> None:
    names = ("file", "quality_score", "num_characters", "num_lines", "quality_flags")
    columns = (rows[name].to_pylist() for name in names)
    for number, score, characters, lines, flags, num, reason, read in zip(
        *columns, part.copies.tolist(), reasons, came_in.tolist(), strict=True
    ):
        if number >= REPORTED_FILES:
            break
        file = files.setdefault(number, FileTally())
        if read:
            file.num_read += 1
            file.score_sum += score
            file.flags.update(flags)
        if reason is not None:
            file.reasons.add(Reason.LIMIT if reason == UNREAD else reason)
        file.num_documents += num
        file.num_characters += num * characters
        file.num_lines += num * lines


def _reasons(rows: Any, part: Part) -> list[str | None]:
    """Of each row why it is dropped, or None; a decision after cleaning comes first: behind a limit nothing else counts."""
    decided = {action: REASONS[action].value for action in REASONS} | {Action.UNREAD: UNREAD}
    return [
        decided.get(Action(action), earlier)
        for action, earlier in zip(part.actions.tolist(), rows["reason"].to_pylist(), strict=True)
    ]
