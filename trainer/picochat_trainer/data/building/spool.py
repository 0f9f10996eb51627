"""First pass: cleans, scores and signs a batch and leaves it in a temporary Arrow file, one row per document read.

Runs in worker processes and keeps nothing between batches: what it answers with is what decisions are made from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from picochat_contract.data_configs import CleaningConfig

from picochat_trainer.data.building.raw import RawDocuments
from picochat_trainer.data.cleaning.characters import normalise
from picochat_trainer.data.cleaning.cleaner import Cleaned, clean_documents
from picochat_trainer.data.cleaning.lines import filled_lines, line_digests
from picochat_trainer.data.cleaning.personal_data import PersonalData
from picochat_trainer.data.cleaning.reasons import Reason
from picochat_trainer.data.cleaning.weights import num_copies
from picochat_trainer.data.dedup import exact, near

SAMPLE_CHARACTERS: Final = 80
COUNTERS: Final = (
    "num_control",
    "num_replacement",
    "num_zero_width",
    "num_repeated_lines",
    "num_boilerplate_lines",
    *(f"num_{kind.value}" for kind in PersonalData),
)
SCHEMA: Final = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("label", pa.string()),
        pa.field("license", pa.string()),
        pa.field("source", pa.int32()),
        pa.field("file", pa.int32()),
        pa.field("reason", pa.string()),
        pa.field("text", pa.string()),
        pa.field("sample", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("quality_score", pa.int16()),
        pa.field("quality_flags", pa.list_(pa.string())),
        pa.field("num_characters", pa.int64()),
        pa.field("num_bytes", pa.int64()),
        pa.field("num_lines", pa.int64()),
        pa.field("num_filled_lines", pa.int64()),
        pa.field("num_non_ascii", pa.int64()),
        *(pa.field(name, pa.int32()) for name in COUNTERS),
    ]
)


@dataclass(frozen=True, kw_only=True)
class CleanTask:
    """One batch and how to clean it."""

    documents: RawDocuments | Path
    """Or the spool that `boilerplate_digests` left them in."""
    config: CleaningConfig
    min_score: float
    weights: tuple[float, ...]
    """By source."""
    spool: Path
    frequent: Path | None
    """Array file with the digests of boilerplate lines."""


@dataclass(frozen=True, kw_only=True)
class CleanedBatch:
    """What decisions are made from; every array has one entry per row."""

    passed: NDArray[np.bool_]
    """False: dropped here, with the reason in the spool."""
    num_characters: NDArray[np.int64]
    num_bytes: NDArray[np.int64]
    num_lines: NDArray[np.int64]
    copies: NDArray[np.uint8]
    """How often the document stands in the corpus if it is kept; 0: its source's weight drew it out."""
    fingerprints: tuple[bytes, ...]
    """Of the rows that passed."""
    signatures: near.Signatures | None
    """Of the rows that passed; None where near duplicates are not looked for."""


def clean_batch(task: CleanTask) -> CleanedBatch:
    """Clean the documents of a batch, write them to its spool file, and return what decides on them."""
    documents = task.documents if isinstance(task.documents, RawDocuments) else _read_raw(task.documents)
    frequent = None if task.frequent is None else _frequent_lines(task.frequent)
    cleaned = clean_documents(documents.texts, task.config, min_score=task.min_score, frequent=frequent)
    reasons = [left_out or row.reason for left_out, row in zip(documents.reasons, cleaned, strict=True)]
    passed = [reason is None for reason in reasons]
    texts = [row.text for row, passes in zip(cleaned, passed, strict=True) if passes]
    raw = [row.text.encode() for row in cleaned]
    digests = [sha256(data).hexdigest() for data in raw]
    _write(task.spool, documents, cleaned, reasons, raw, digests)
    return CleanedBatch(
        passed=np.array(passed, np.bool_),
        num_characters=np.array([len(row.text) for row in cleaned], np.int64),
        num_bytes=np.array([len(data) for data in raw], np.int64),
        num_lines=np.array([row.quality.num_lines for row in cleaned], np.int64),
        copies=np.array(
            [
                num_copies(digest, task.weights[source])
                for digest, source in zip(digests, documents.sources, strict=True)
            ],
            np.uint8,
        ),
        fingerprints=tuple(exact.fingerprint(text) for text in texts),
        signatures=near.sign(texts, threshold=task.config.near_threshold)
        if task.config.near_duplicates
        else None,
    )


@dataclass(frozen=True, kw_only=True)
class CountTask:
    """One batch whose lines are to be counted before any is cleaned."""

    documents: RawDocuments
    config: CleaningConfig
    spool: Path


def count_lines(task: CountTask) -> NDArray[np.uint64]:
    """Digests of the lines of a batch, each once per document that holds it. The documents go into the spool as they
    are, so that sources are read once."""
    _write_table(task.spool, pa.table(vars(task.documents)))
    found = [
        np.unique(line_digests(filled_lines(normalise(text, task.config.unicode).text)))
        for text in task.documents.texts
    ]
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def read_table(path: Path) -> Any:
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).read_all()


def _read_raw(path: Path) -> RawDocuments:
    return RawDocuments(**read_table(path).to_pydict())


def _write(
    path: Path,
    documents: RawDocuments,
    cleaned: Sequence[Cleaned],
    reasons: Sequence[str | None],
    raw: Sequence[bytes],
    digests: Sequence[str],
) -> None:
    columns: dict[str, Sequence[Any]] = {
        "path": documents.paths,
        "label": documents.labels,
        "license": documents.licenses,
        "source": documents.sources,
        "file": documents.files,
        "reason": reasons,
        "text": [row.text if reason is None else None for row, reason in zip(cleaned, reasons, strict=True)],
        "sample": [
            None if reason == Reason.PII else row.text[:SAMPLE_CHARACTERS]
            for row, reason in zip(cleaned, reasons, strict=True)
        ],
        "sha256": digests,
        "quality_score": [row.quality.score for row in cleaned],
        "quality_flags": [row.quality.flags for row in cleaned],
        "num_characters": [len(row.text) for row in cleaned],
        "num_bytes": [len(data) for data in raw],
        "num_lines": [row.quality.num_lines for row in cleaned],
        "num_filled_lines": [row.quality.num_filled_lines for row in cleaned],
        "num_non_ascii": [row.quality.num_non_ascii for row in cleaned],
    }
    for name in COUNTERS[:5]:
        columns[name] = [getattr(row, name) for row in cleaned]
    for kind in PersonalData:
        columns[f"num_{kind.value}"] = [row.personal[kind] for row in cleaned]
    _write_table(path, pa.table(columns, schema=SCHEMA))


def _write_table(path: Path, table: Any) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table)


@cache
def _frequent_lines(path: Path) -> NDArray[np.uint64]:
    return np.load(path)
