"""Builds a corpus from source files, in two passes over temporary files and with memory that does not grow with the text.

First pass: read, clean, score and sign batches of documents in worker processes, draw by weight, drop exact duplicates.
Second pass: drop near duplicates, write Parquet shards and the list of what was dropped. The result is the same for any
number of workers. Nothing is left of a build that fails. Memory holds the largest document a few times over, a batch per
worker and about 100 bytes per document; disk about as much as the text while the build runs.
"""

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from picochat_contract import layout
from picochat_contract.data_configs import CleaningConfig, Source
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import new_folder, previous_of, remove_leftovers, write_text
from picochat_trainer.data.building.first_pass import spool_documents
from picochat_trainer.data.building.second_pass import Gathered, gather
from picochat_trainer.data.cleaning.cleaner import check_libraries
from picochat_trainer.data.corpus_report import corpus_report
from picochat_trainer.data.facts import Corpus
from picochat_trainer.data.manifest import corpus_manifest, manifest_text
from picochat_trainer.data.sources import SourceFile
from picochat_trainer.data.workers import Workers

SEPARATOR: Final = "\n\n"
TEXT_LIMIT_BYTES: Final = 64 << 20
"""Larger corpora have no corpus.txt beside the shards."""
_OWN_FILE = re.compile(r"part-\d{5,}\.parquet|dropped\.parquet")
Progress = Callable[[int, int], None]
"""Told now and then: documents read, their characters."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the files of a corpus go."""

    folder: Path
    """Of shards and of the list of what was dropped."""
    text: Path
    manifest: Path
    report: Path
    text_limit_bytes: int | None = TEXT_LIMIT_BYTES
    """None: the text file is written whatever its size."""

    @classmethod
    def below(cls, out_dir: Path) -> "Places":
        """Under the names of a run folder."""
        return cls(
            folder=out_dir / layout.CORPUS_DIR,
            text=out_dir / layout.CORPUS,
            manifest=out_dir / layout.CORPUS_MANIFEST,
            report=out_dir / layout.CORPUS_REPORT,
        )


@dataclass(frozen=True, kw_only=True)
class Preview:
    corpus: Corpus
    text: str
    """Beginning of the first document that would be kept."""


def build_corpus(
    files: Iterable[SourceFile],
    sources: Sequence[Source],
    cleaning: CleaningConfig,
    min_score: float,
    out_dir: Path | Places,
    workers: int | Workers,
    *,
    progress: Progress | None = None,
) -> Corpus:
    """Write shards, the list of dropped documents, corpus.txt where it is small, manifest and report.

    `workers` are so many processes of this machine, or the open workers of an engine (`data/cluster.py`).
    Without any usable document the corpus is empty and its readiness blocked; there are no shards then.
    """
    check_libraries(cleaning)
    places = out_dir if isinstance(out_dir, Places) else Places.below(out_dir)
    _check_replaceable(places.folder)
    remove_leftovers(places.folder)
    partial = places.text.with_name(f".{places.text.name}.partial")
    try:
        with new_folder(places.folder) as folder, tempfile.TemporaryDirectory(dir=folder) as work:
            with nullcontext(workers) if isinstance(workers, Workers) else Workers(workers) as pool:
                spooled = spool_documents(files, sources, cleaning, min_score, Path(work), pool, progress)
                gathered = gather(spooled, pool, folder)
            text_sha256 = _write_text(gathered, folder, partial, places)
            places.manifest.unlink(missing_ok=True)  # a manifest never stands beside shards of another build
        shutil.rmtree(previous_of(places.folder), ignore_errors=True)
        corpus = gathered.corpus(text=places.text.name if text_sha256 else None, text_sha256=text_sha256)
        if text_sha256 is None:
            places.text.unlink(missing_ok=True)
        else:
            partial.replace(places.text)
    finally:
        partial.unlink(missing_ok=True)
    write_text(places.report, corpus_report(corpus, sources))
    write_text(places.manifest, manifest_text(corpus_manifest(corpus, sources)))
    return corpus


def preview_corpus(
    files: Iterable[SourceFile],
    sources: Sequence[Source],
    cleaning: CleaningConfig,
    min_score: float,
    workers: int,
    *,
    num_characters: int,
) -> Preview:
    """Everything that `build_corpus` would find, and the beginning of the text; what is written lies in a temporary folder
    and is gone at the end."""
    check_libraries(cleaning)
    with tempfile.TemporaryDirectory(prefix="picochat-preview-") as work, Workers(workers) as pool:
        spooled = spool_documents(files, sources, cleaning, min_score, Path(work), pool, None)
        text = next(spooled.kept_texts(), "")[:num_characters]
        corpus = gather(spooled, pool, None).corpus(text=None, text_sha256=None)
    return Preview(corpus=corpus, text=text)


def _check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but an earlier corpus: it may be where the sources lie."""
    if not folder.exists():
        return
    inside = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
    others = [name for name in inside if not _OWN_FILE.fullmatch(name)]
    if others:
        raise ContractError(
            Code.EXISTS,
            f"{folder} holds {others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}, which is not a part of "
            "a corpus, and would be replaced; choose another place for the corpus",
            param=str(folder),
        )


def _write_text(gathered: Gathered, folder: Path, partial: Path, places: Places) -> str | None:
    """Write the text to `partial` and return its sha256, or None where it is over the limit or there is none."""
    limit = places.text_limit_bytes
    if not gathered.shard_paths or (limit is not None and gathered.num_text_bytes > limit):
        return None
    digest = hashlib.sha256()
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as file:
        before = ""
        for text in _shard_texts(gathered.shard_paths):
            data = (before + text).encode()
            digest.update(data)
            file.write(data)
            before = SEPARATOR
        digest.update(b"\n")
        file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _shard_texts(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        with pq.ParquetFile(path) as shard:
            for batch in shard.iter_batches(batch_size=256, columns=["text"]):
                yield from batch.column(0).to_pylist()
