"""Reads a built corpus one document at a time: Parquet shards, or `corpus.txt` cut at the manifest's spans.

Everything that needs text after the dataset stage reads it here. Memory holds one row group. No torch.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow.parquet as pq
from picochat_contract import layout
from picochat_contract.canonical import sha256_hex
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import file_sha256

FORMAT: Final = "picochat-corpus"
COLUMNS: Final = ("document_id", "text", "path", "label", "license", "source", "quality_score")
BATCH_ROWS: Final = 256


@dataclass(frozen=True, kw_only=True)
class CorpusDocument:
    """One document of the corpus as it is trained on, after cleaning."""

    index: int
    """0-based place in the corpus; a copy made by a source's weight is a document of its own."""
    document_id: str
    text: str
    path: str
    label: str | None
    license: str | None
    source: int | None
    """Index into the manifest's `sources`."""
    quality_score: int | None


class CorpusDocuments(Protocol):
    """What can be gone through like a corpus, built or not."""

    @property
    def num_documents(self) -> int | None: ...

    def documents(self) -> Iterator[CorpusDocument]: ...


class CorpusStore:
    """A corpus on disk. `locate` gives the path of a run-folder name, as `StageContext.path` does."""

    def __init__(self, locate: Callable[[str], Path]) -> None:
        self._locate = locate
        self._manifest_path = locate(layout.CORPUS_MANIFEST)
        self.manifest: dict[str, Any] | None = _read_manifest(self._manifest_path)
        if self.manifest is None and not self._text_path.is_file():
            raise ContractError(
                Code.CORPUS_MISSING,
                f"there is no corpus: neither {self._manifest_path} nor {self._text_path}; run the dataset stage, "
                "or give --corpus a text file",
                param=layout.CORPUS,
            )

    @classmethod
    def at(cls, folder: Path) -> "CorpusStore":
        """The corpus of a run folder."""
        return cls(folder.joinpath)

    @classmethod
    def of(cls, path: Path, manifest: Path | None = None) -> "CorpusStore":
        """What a user names a corpus by: a text file, a corpus_manifest.json, or the folder that holds either."""
        if path.is_dir():
            return cls.at(path)
        if path.name == layout.CORPUS_MANIFEST and manifest is None:
            return cls.at(path.parent)
        if manifest is None and not path.exists():
            raise ContractError(
                Code.CORPUS_MISSING,
                f"there is no {path}; give a UTF-8 text, a corpus_manifest.json, or the folder of a built corpus",
                param=layout.CORPUS,
            )
        if manifest is not None and not manifest.is_file():
            raise ContractError(
                Code.CORPUS_MISSING,
                f"there is no corpus manifest at {manifest}; expected the file that picochat data build wrote",
                param=layout.CORPUS_MANIFEST,
            )
        places = {layout.CORPUS: path, layout.CORPUS_MANIFEST: manifest or Path()}
        store = cls(lambda name: places.get(name, path.parent / name))
        store._check_text()
        return store

    @property
    def sha256(self) -> str:
        """Digest that stands for the whole corpus: of its manifest, which holds those of all shards."""
        return file_sha256(self._manifest_path if self.manifest is not None else self._text_path)

    @property
    def shards(self) -> tuple[str, ...]:
        """Run-folder names of the Parquet shards, in order; empty for a corpus that is only `corpus.txt`."""
        return tuple(shard["path"] for shard in (self.manifest or {}).get("shards", ()))

    @property
    def num_documents(self) -> int | None:
        """None for a bare text file without a manifest."""
        return None if self.manifest is None else int(self.manifest["stats"]["num_documents"])

    @property
    def num_bytes(self) -> int:
        """Bytes of UTF-8 text, about; of a text file its size."""
        if self.shards:
            return sum(int(shard["num_bytes"]) for shard in (self.manifest or {})["shards"])
        return self._text_path.stat().st_size if self._text_path.is_file() else 0

    def documents(self, shards: Sequence[str] | None = None) -> Iterator[CorpusDocument]:
        """All documents in order, or those of some of the shards (then `index` still counts from the beginning)."""
        if not self.shards and self.num_documents != 0:
            yield from self._text_documents()
            return
        wanted = set(self.shards if shards is None else shards)
        start = 0
        for entry in (self.manifest or {})["shards"]:
            if entry["path"] in wanted:
                yield from self._shard_documents(entry, start)
            start += int(entry["num_documents"])

    def check_digests(self) -> None:
        """Raise `input_changed` where a shard is not what the manifest says."""
        for entry in (self.manifest or {}).get("shards", ()):
            path = self._locate(entry["path"])
            if not path.is_file() or file_sha256(path) != entry["sha256"]:
                raise ContractError(
                    Code.INPUT_CHANGED,
                    f"{path} is missing or is not the file of {self._manifest_path}; build the corpus again",
                    param=entry["path"],
                )

    def _check_text(self) -> None:
        """Raise `input_changed` where the text file is not the one that the manifest describes."""
        digest = (self.manifest or {}).get("text_sha256")
        if digest is not None and self._text_path.is_file() and file_sha256(self._text_path) != digest:
            raise ContractError(
                Code.INPUT_CHANGED,
                f"{self._text_path} is not the text of {self._manifest_path}: it was changed, or is of another "
                "corpus; build the corpus again, or give the text without a manifest",
                param=layout.CORPUS,
            )

    @property
    def _text_path(self) -> Path:
        return self._locate(layout.CORPUS)

    def _shard_documents(self, entry: dict[str, Any], start: int) -> Iterator[CorpusDocument]:
        path = self._locate(entry["path"])
        try:
            with pq.ParquetFile(path) as file:
                index = start
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(COLUMNS)):
                    for row in batch.to_pylist():
                        yield CorpusDocument(index=index, **row)
                        index += 1
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{path} is no corpus shard: expected zstd Parquet with the columns {', '.join(COLUMNS)} ({error})",
                param=entry["path"],
            ) from error

    def _text_documents(self) -> Iterator[CorpusDocument]:
        text = _read_text(self._text_path)
        if not text.strip():
            raise ContractError(
                Code.CORPUS_EMPTY, f"{self._text_path} holds no text", param=str(self._text_path)
            )
        spans = (self.manifest or {}).get("documents") or [
            {
                "document_id": sha256_hex(text)[:16],
                "path": self._text_path.name,
                "char_start": 0,
                "char_end": len(text),
            }
        ]
        for index, span in enumerate(spans):
            start, end = span["char_start"], span["char_end"]
            if not 0 <= start <= end <= len(text):
                raise ContractError(
                    Code.INPUT_CHANGED,
                    f"{self._manifest_path}: document {span['path']!r} spans characters {start}-{end}, the corpus has "
                    f"{len(text)}; build both again from the same sources",
                    param=layout.CORPUS_MANIFEST,
                )
            yield CorpusDocument(
                index=index,
                document_id=span["document_id"],
                text=text[start:end],
                path=span["path"],
                label=span.get("label"),
                license=span.get("license"),
                source=span.get("source"),
                quality_score=span.get("quality_score"),
            )


def _read_manifest(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not isinstance(manifest["stats"]["num_documents"], int):
            raise ValueError(f"format {manifest['format']!r}")
        for span in [] if manifest.get("shards") else manifest["documents"]:
            span["document_id"], span["path"], int(span["char_start"]), int(span["char_end"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path} is no corpus manifest of {FORMAT} ({error!r}); build the corpus again",
            param=str(path),
        ) from error
    return dict(manifest)


def _read_text(path: Path) -> str:
    try:
        # newline="": spans count characters as they are in the file
        with path.open(encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE, f"{path} cannot be read as UTF-8 text: {error}", param=str(path)
        ) from error
