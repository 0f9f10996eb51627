"""Reads a token store: memory-mapped shards of token ids with document offsets.

    tokens/token_shards_manifest.json   what it was made of, and the digest of every file
    tokens/tokens-000000.bin ...        little-endian uint16 (or uint32) ids; each document begins with BOS
    tokens/offsets.bin                  int64, num_documents + 1: where each document begins in all tokens
    tokens/document_bytes.bin           int64, num_documents: bytes of UTF-8 text
    tokens/document_digests.bin         uint64, num_documents: equal for texts that `data.dedup.exact` calls equal
    tokens/documents.parquet            document_id and path of each document

Document i is document i of the corpus. A document never crosses from one shard into the next.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from picochat_contract.canonical import digest_of
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import file_sha256

FORMAT: Final = "picochat-tokens"
VERSION: Final = 1
MANIFEST: Final = "token_shards_manifest.json"
OFFSETS: Final = "offsets.bin"
DOCUMENT_BYTES: Final = "document_bytes.bin"
DOCUMENT_DIGESTS: Final = "document_digests.bin"
DOCUMENTS: Final = "documents.parquet"
SIDE_FILES: Final = {
    "offsets": (OFFSETS, "<i8"),
    "document_bytes": (DOCUMENT_BYTES, "<i8"),
    "document_digests": (DOCUMENT_DIGESTS, "<u8"),
}
DTYPES: Final = {"uint16": "<u2", "uint32": "<u4"}

Tokens = NDArray[np.unsignedinteger]


def shard_name(index: int) -> str:
    return f"tokens-{index:06d}.bin"


def token_dtype(vocab_size: int) -> str:
    """`uint16` while every id fits, else `uint32`."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


@dataclass(frozen=True, kw_only=True)
class Shard:
    path: str
    sha256: str
    num_tokens: int
    first_document: int
    num_documents: int


class TokenStore:
    """An open store. Opening checks names and sizes; `check_digests` reads everything."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.num_documents = int(manifest["num_documents"])
        self.num_tokens = int(manifest["num_tokens"])
        self.num_bytes = int(manifest["num_bytes"])
        self.vocab_size = int(manifest["vocab_size"])
        self.bos_id = int(manifest["bos"])
        self.dtype = np.dtype(DTYPES[manifest["dtype"]])
        self.shards = tuple(Shard(**shard) for shard in manifest["shards"])
        counts = [self.num_documents + 1, self.num_documents, self.num_documents]
        side = [
            _mapped(folder / name, dtype, count)
            for (name, dtype), count in zip(SIDE_FILES.values(), counts, strict=True)
        ]
        self.offsets: NDArray[np.int64] = side[0]
        """int64 (num_documents + 1): first token of each document in all tokens, and their number."""
        self.document_bytes: NDArray[np.int64] = side[1]
        self.document_digests: NDArray[np.uint64] = side[2]
        self.arrays: tuple[Tokens, ...] = tuple(
            _mapped(folder / shard.path, self.dtype, shard.num_tokens) for shard in self.shards
        )
        self.bases = np.cumsum([0, *(shard.num_tokens for shard in self.shards)], dtype=np.int64)
        """Index in all tokens of the first token of each shard, and their number."""

    @classmethod
    def open(cls, folder: Path) -> "TokenStore":
        path = folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {manifest['format']!r} version {manifest['version']!r}")
            return cls(folder, manifest)
        except FileNotFoundError as error:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"no token store at {folder}: {error.filename} is missing; run the tokenizer stage",
                param=str(folder),
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{path} is no manifest of {FORMAT} version {VERSION} ({error!r}); build the tokens again",
                param=str(path),
            ) from error

    @property
    def corpus_sha256(self) -> str:
        return str(self.manifest["corpus_sha256"])

    @property
    def tokenizer_sha256(self) -> str:
        return str(self.manifest["tokenizer_sha256"])

    @cached_property
    def sha256(self) -> str:
        """Digest of what is in the store; which encoder wrote it does not matter, since ids are equal."""
        names = ("dtype", "vocab_size", "bos", "corpus_sha256", "tokenizer_sha256", "shards", *SIDE_FILES)
        return digest_of({name: self.manifest[name] for name in names})

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token, without the BOS of each document."""
        return self.num_bytes / max(self.num_tokens - self.num_documents, 1)

    def document(self, index: int) -> Tokens:
        """Ids of one document with its BOS; a view into the mapped file."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        shard = int(np.searchsorted(self.bases, start, side="right")) - 1
        base = int(self.bases[shard])
        return self.arrays[shard][start - base : end - base]

    def document_ids(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        return self._column("document_id", indices)

    def document_paths(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        return self._column("path", indices)

    def refuse_other(self, *, corpus_sha256: str | None = None, tokenizer_sha256: str | None = None) -> None:
        """Raise `input_changed` where the store was made of another corpus or tokenizer."""
        wanted = {"corpus": corpus_sha256, "tokenizer": tokenizer_sha256}
        found = {"corpus": self.corpus_sha256, "tokenizer": self.tokenizer_sha256}
        for name, digest in wanted.items():
            if digest is not None and digest != found[name]:
                raise ContractError(
                    Code.INPUT_CHANGED,
                    f"the tokens in {self.folder} were made with the {name} {found[name][:12]}, the {name} here is "
                    f"{digest[:12]}; run the tokenizer stage again",
                    param=str(self.folder),
                )

    def check_digests(self) -> None:
        """Raise `input_changed` where a file is not what the manifest says."""
        entries = [self.manifest[name] for name in (*SIDE_FILES, "documents")] + self.manifest["shards"]
        for entry in entries:
            path = self.folder / entry["path"]
            if not path.is_file() or file_sha256(path) != entry["sha256"]:
                raise ContractError(
                    Code.INPUT_CHANGED,
                    f"{path} is missing or is not the file of {MANIFEST}; build the tokens again",
                    param=entry["path"],
                )

    def _column(self, name: str, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        wanted = np.asarray(indices, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        found: list[str] = []
        start = 0
        with pq.ParquetFile(self.folder / DOCUMENTS) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                first, last = np.searchsorted(wanted, [start, end], sorter=order)
                if first < last:
                    rows = file.read_row_group(group, columns=[name])[name]
                    found += rows.take(pa.array(wanted[order[first:last]] - start)).to_pylist()
                start = end
        values = np.empty(len(wanted), dtype=object)
        values[order] = found
        return [str(value) for value in values]


def _mapped(path: Path, dtype: str | np.dtype, count: int) -> Any:
    kind = np.dtype(dtype)
    size = path.stat().st_size
    if size != count * kind.itemsize:
        raise ContractError(
            Code.INPUT_CHANGED,
            f"{path} has {size} bytes, its manifest says {count} numbers of {kind.itemsize} bytes; build the tokens "
            "again",
            param=str(path),
        )
    return np.memmap(path, dtype=kind, mode="r", shape=(count,)) if count else np.empty(0, dtype=kind)
