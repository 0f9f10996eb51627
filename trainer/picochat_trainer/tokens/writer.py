"""Builds a token store from a corpus: streaming, in parallel batches, and whole or not at all.

Documents are encoded in pieces that end where no token can span (see `cut`), so that memory stays flat for a single
document of any size. While one batch is encoded, the main thread reads and writes the batches around it.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import file_sha256, new_folder, previous_of, remove_leftovers, write_json
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.dedup.exact import fingerprint
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.cutting import cut
from picochat_trainer.tokens.encoders import Encoded, Encoder, EncoderChoice, EncoderError, Log, encoders
from picochat_trainer.tokens.proof import Proof
from picochat_trainer.tokens.store import (
    DOCUMENTS,
    DTYPES,
    FORMAT,
    MANIFEST,
    SIDE_FILES,
    VERSION,
    TokenStore,
    shard_name,
    token_dtype,
)

PIECE_CHARACTERS: Final = 1 << 20
BATCH_CHARACTERS: Final = 1 << 22  # encoded at a time; the reference holds about 40 bytes per character
SHARD_TOKENS: Final = 100_000_000
DOCUMENT_COLUMNS: Final = pa.schema([("document_id", pa.string()), ("path", pa.string())])

Progress = Callable[[int, int | None], None]
"""Takes the documents done and their number, where it is known."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """A new token store and how it came about."""

    store: TokenStore
    encoder: str
    seconds: float
    """Of the build that was kept, with the comparison in it."""

    @property
    def tokens_per_second(self) -> float:
        return self.store.num_tokens / max(self.seconds, 1e-9)


@dataclass(kw_only=True)
class Batch:
    """Pieces of text to be encoded together, and the documents that begin in them."""

    pieces: list[str] = field(default_factory=list)
    first_pieces: list[int] = field(default_factory=list)
    """Index of the piece that each document begins with."""
    ids: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)


def build_token_store(
    corpus: CorpusStore,
    tokenizer: Tokenizer,
    out_dir: Path,
    *,
    encoder: EncoderChoice = "auto",
    shard_tokens: int = SHARD_TOKENS,
    seed: int = 0,
    log: Log = lambda level, message: None,
    progress: Progress = lambda done, total: None,
) -> Built:
    """Write the token store of `corpus` to the folder `out_dir`, replacing what is there.

    An encoder whose ids differ from the reference is given up with a warning, and the build starts again.
    """
    remove_leftovers(out_dir)
    for candidate in encoders(encoder, tokenizer, log):
        started = time.perf_counter()
        proof = Proof(
            candidate,
            tokenizer,
            seed=seed,
            num_documents=corpus.num_documents or 0,
            num_bytes=corpus.num_bytes,
        )
        try:
            proof.check_awkward()
            with new_folder(out_dir) as folder:
                _write(corpus, tokenizer, candidate, proof, folder, shard_tokens, progress)
        except EncoderError as error:
            log("warning", f"{candidate.name} was given up: {error}; using the next encoder")
            continue
        shutil.rmtree(previous_of(out_dir), ignore_errors=True)  # a second copy of the corpus
        store = TokenStore.open(out_dir)
        return Built(store=store, encoder=candidate.name, seconds=time.perf_counter() - started)
    raise AssertionError("the reference encoder is never given up")


def _write(
    corpus: CorpusStore,
    tokenizer: Tokenizer,
    encoder: Encoder,
    proof: Proof,
    folder: Path,
    shard_tokens: int,
    progress: Progress,
) -> None:
    with _Writer(folder, tokenizer, shard_tokens) as writer, ThreadPoolExecutor(1) as pool:
        waiting: tuple[Batch, Any] | None = None
        for batch in _batches(corpus):
            encoding = pool.submit(encoder.encode, batch.pieces)
            if waiting is not None:
                _finish(waiting[0], waiting[1].result(), proof, writer)
                progress(writer.num_documents, corpus.num_documents)
            waiting = batch, encoding
        if waiting is None:
            raise ContractError(
                Code.CORPUS_EMPTY, "the corpus has no documents; build it from sources with text"
            )
        _finish(waiting[0], waiting[1].result(), proof, writer)
    progress(writer.num_documents, writer.num_documents)
    facts = {
        "corpus_sha256": corpus.sha256,
        "tokenizer_sha256": tokenizer.digest,
        "encoder": {
            "name": encoder.name,
            "version": encoder.version,
            "sample_documents": proof.sample_documents,
            "equal": True,  # else the proof had raised
        },
    }
    write_json(folder / MANIFEST, writer.manifest(facts))


def _finish(batch: Batch, encoded: Encoded, proof: Proof, writer: "_Writer") -> None:
    proof.check(batch.pieces, encoded)
    writer.add(batch, encoded)


def _batches(corpus: CorpusStore) -> Iterator[Batch]:
    batch, size = Batch(), 0
    for document in corpus.documents():
        raw = document.text.encode()
        batch.first_pieces.append(len(batch.pieces))
        batch.ids.append(document.document_id)
        batch.paths.append(document.path)
        batch.num_bytes.append(len(raw))
        batch.digests.append(fingerprint(document.text)[:8])
        for piece in cut(document.text, PIECE_CHARACTERS):
            batch.pieces.append(piece)
            size += len(piece)
            if size >= BATCH_CHARACTERS:
                yield batch
                batch, size = Batch(), 0
    if batch.pieces:
        yield batch


class _Writer:
    """Appends encoded batches to the files of a store."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self._folder = folder
        self._bos_id = tokenizer.bos_id
        self._vocab_size = tokenizer.vocab_size
        self._dtype = token_dtype(tokenizer.vocab_size)
        self._shard_tokens = shard_tokens
        self._side = {name: _HashedFile(folder / file) for name, (file, _) in SIDE_FILES.items()}
        self._documents = pq.ParquetWriter(folder / DOCUMENTS, DOCUMENT_COLUMNS, compression="zstd")
        self._shard: _HashedFile | None = None
        self._shard_size = 0
        self._shards: list[dict[str, Any]] = []
        self.num_documents = 0
        self.num_tokens = 0
        self.num_bytes = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._end_shard()
            self._append("offsets", [self.num_tokens])
        self._documents.close()
        for file in [*self._side.values(), *([self._shard] if self._shard else [])]:
            file.close()

    def add(self, batch: Batch, encoded: Encoded) -> None:
        ends = np.cumsum(encoded.lengths)
        before = (ends - encoded.lengths)[batch.first_pieces]
        tokens = np.insert(encoded.ids.astype(DTYPES[self._dtype], copy=False), before, self._bos_id)
        starts = before + np.arange(len(before))
        self._append("offsets", starts + self.num_tokens)
        self._append("document_bytes", batch.num_bytes)
        self._side["document_digests"].write(b"".join(batch.digests))
        self._documents.write_table(pa.table([batch.ids, batch.paths], schema=DOCUMENT_COLUMNS))
        self._append_tokens(tokens, starts)
        self.num_tokens += len(tokens)
        self.num_bytes += sum(batch.num_bytes)

    def manifest(self, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "dtype": self._dtype,
            "vocab_size": self._vocab_size,
            "bos": self._bos_id,
            "num_documents": self.num_documents,
            "num_tokens": self.num_tokens,
            "num_bytes": self.num_bytes,
            **facts,
            "shard_tokens": self._shard_tokens,
            "shards": self._shards,
            **{
                name: {"path": SIDE_FILES[name][0], "sha256": file.sha256}
                for name, file in self._side.items()
            },
            "documents": {"path": DOCUMENTS, "sha256": file_sha256(self._folder / DOCUMENTS)},
        }

    def _append(self, name: str, numbers: NDArray[np.int64] | list[int]) -> None:
        self._side[name].write(np.asarray(numbers, dtype=SIDE_FILES[name][1]).tobytes())

    def _append_tokens(self, tokens: np.ndarray, starts: NDArray[np.int64]) -> None:
        """Write to the shard; a new one begins with the first document after it is full."""
        begin = 0
        while True:
            full_at = begin + self._shard_tokens - self._shard_size
            index = int(np.searchsorted(starts, max(full_at, begin)))
            end = int(starts[index]) if index < len(starts) else len(tokens)
            inside = int(np.searchsorted(starts, end)) - int(np.searchsorted(starts, begin))
            self._write_part(tokens[begin:end], inside)
            if index == len(starts):
                return
            self._end_shard()
            begin = end

    def _write_part(self, tokens: np.ndarray, num_documents: int) -> None:
        if self._shard is None:
            name = shard_name(len(self._shards))
            self._shard, self._shard_size = _HashedFile(self._folder / name), 0
            self._shards.append({"path": name, "first_document": self.num_documents})
        self._shard.write(tokens.data.cast("B") if len(tokens) else b"")
        self._shard_size += len(tokens)
        self.num_documents += num_documents

    def _end_shard(self) -> None:
        if self._shard is None:
            return
        self._shard.close()
        entry = self._shards[-1]
        entry |= {
            "sha256": self._shard.sha256,
            "num_tokens": self._shard_size,
            "num_documents": self.num_documents - entry["first_document"],
        }
        self._shard, self._shard_size = None, 0


class _HashedFile:
    """A new file whose sha256 is known when it is closed."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)

    def close(self) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()
