"""Builds `corpus.txt`: documents joined by one blank line, with a final newline, and what is known about each.

Low-scoring documents and exact duplicates are left out and listed. Memory holds one document at a time, the
records, and a digest per line. Near-duplicates are not looked for here.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TextIO

from picochat_contract.canonical import sha256_hex
from picochat_contract.data_configs import CORPUS_SUFFIXES
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.documents import Document
from picochat_trainer.data.quality import Quality, count_non_ascii, measure_quality
from picochat_trainer.data.sources import SourceFile

SEPARATOR: Final = "\n\n"
INCLUDED: Final = "included"


@dataclass(frozen=True, kw_only=True)
class DocumentRecord:
    """A document of the corpus and where it lies in `corpus.txt`."""

    document_id: str
    path: str
    label: str | None
    char_start: int
    char_end: int
    byte_start: int
    byte_end: int
    num_characters: int
    num_lines: int
    quality_score: int
    quality_flags: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class DroppedDocument:
    path: str
    reason: str
    """empty_text, below_min_score or duplicate."""
    quality_score: int
    duplicate_of: str | None = None
    """document_id of the one that was kept."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A source file and what became of it."""

    path: str
    extension: str
    label: str | None
    included: bool
    reason: str
    """included, unsupported_extension, or why its documents were dropped."""
    num_documents: int
    num_characters: int
    num_lines: int
    quality_score: float | None
    """Mean over its documents."""
    quality_flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    num_files: int
    num_documents: int
    num_characters: int
    """Of corpus.txt, separators included."""
    num_bytes: int
    num_lines: int
    average_document_chars: float
    duplicate_document_rate: float
    """Share of the documents that came in which were exact duplicates (and were removed)."""
    duplicate_line_rate: float
    non_ascii_rate: float
    empty_line_rate: float


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Everything that the manifest and the report say about a corpus."""

    sha256: str
    min_quality_score: float
    documents: tuple[DocumentRecord, ...]
    dropped: tuple[DroppedDocument, ...]
    files: tuple[FileRecord, ...]
    stats: CorpusStats


def build_corpus(files: Iterable[SourceFile], *, min_score: float = 0, out: TextIO | None = None) -> Corpus:
    """Read `files`, write the corpus to `out` (a preview has none) and describe it."""
    builder = _Builder(min_score=min_score, out=out)
    for file in files:
        builder.add_file(file)
    return builder.finish()


@dataclass(kw_only=True)
class _Builder:
    min_score: float
    out: TextIO | None
    documents: list[DocumentRecord] = field(default_factory=list)
    dropped: list[DroppedDocument] = field(default_factory=list)
    files: list[FileRecord] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)  # sha256 of a text -> document_id
    lines: set[bytes] = field(default_factory=set)
    num_filled_lines: int = 0
    num_non_ascii: int = 0
    num_characters: int = 0
    num_bytes: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add_file(self, file: SourceFile) -> None:
        if file.documents is None:
            self.files.append(_unread(file))
            return
        kept: list[DocumentRecord] = []
        reasons: list[str] = []
        qualities: list[Quality] = []
        for document in file.documents():
            text = document.text.strip("\n").rstrip()
            quality = measure_quality(text)
            qualities.append(quality)
            reason, duplicate_of = self._reason(text, quality)
            reasons.append(reason)
            if reason == INCLUDED:
                kept.append(self._add_document(document, text, quality))
            else:
                self.dropped.append(
                    DroppedDocument(
                        path=document.path,
                        reason=reason,
                        quality_score=quality.score,
                        duplicate_of=duplicate_of,
                    )
                )
        self.files.append(_file_record(file, kept, reasons, qualities))

    def finish(self) -> Corpus:
        if not self.documents:
            reasons = sorted({file.reason for file in self.files}) or ["no files were found"]
            raise ContractError(
                Code.CORPUS_EMPTY,
                f"the dataset sources hold no usable document ({', '.join(reasons)}); "
                f"expected {', '.join(CORPUS_SUFFIXES)} files with text in them",
                param="dataset.sources",
            )
        self._write("\n")
        num_lines = sum(d.num_lines for d in self.documents) + len(self.documents) - 1
        num_seen = sum(d.reason == "duplicate" for d in self.dropped) + len(self.documents)
        return Corpus(
            sha256=self.digest.hexdigest(),
            min_quality_score=self.min_score,
            documents=tuple(self.documents),
            dropped=tuple(self.dropped),
            files=tuple(self.files),
            stats=CorpusStats(
                num_files=len(self.files),
                num_documents=len(self.documents),
                num_characters=self.num_characters,
                num_bytes=self.num_bytes,
                num_lines=num_lines,
                average_document_chars=sum(d.num_characters for d in self.documents) / len(self.documents),
                duplicate_document_rate=1 - len(self.documents) / num_seen,
                duplicate_line_rate=1 - len(self.lines) / self.num_filled_lines,
                non_ascii_rate=self.num_non_ascii / self.num_characters,
                empty_line_rate=1 - self.num_filled_lines / num_lines,
            ),
        )

    def _reason(self, text: str, quality: Quality) -> tuple[str, str | None]:
        if not text:
            return "empty_text", None
        if quality.score < self.min_score:
            return "below_min_score", None
        kept = self.ids.get(sha256_hex(text))
        return ("duplicate", kept) if kept else (INCLUDED, None)

    def _add_document(self, document: Document, text: str, quality: Quality) -> DocumentRecord:
        if self.documents:
            self._write(SEPARATOR)
        char_start, byte_start = self.num_characters, self.num_bytes
        self._write(text)
        record = DocumentRecord(
            document_id=f"doc-{len(self.documents) + 1:06d}",
            path=document.path,
            label=document.label,
            char_start=char_start,
            char_end=self.num_characters,
            byte_start=byte_start,
            byte_end=self.num_bytes,
            num_characters=len(text),
            num_lines=text.count("\n") + 1,
            quality_score=quality.score,
            quality_flags=quality.flags,
            sha256=sha256_hex(text),
        )
        self.documents.append(record)
        self.ids[record.sha256] = record.document_id
        self._count_lines(text)
        return record

    def _count_lines(self, text: str) -> None:
        filled = [line.strip() for line in text.split("\n") if line.strip()]
        self.num_filled_lines += len(filled)
        self.num_non_ascii += count_non_ascii(text)
        # 16 bytes per distinct line instead of the line itself
        self.lines.update(hashlib.blake2b(line.encode(), digest_size=16).digest() for line in filled)

    def _write(self, text: str) -> None:
        raw = text.encode()
        self.num_characters += len(text)
        self.num_bytes += len(raw)
        self.digest.update(raw)
        if self.out is not None:
            self.out.write(text)


def _unread(file: SourceFile) -> FileRecord:
    return FileRecord(
        path=file.path,
        extension=file.extension,
        label=file.label,
        included=False,
        reason=file.reason or "unsupported_extension",
        num_documents=0,
        num_characters=0,
        num_lines=0,
        quality_score=None,
        quality_flags=(),
    )


def _file_record(
    file: SourceFile, kept: list[DocumentRecord], reasons: list[str], qualities: list[Quality]
) -> FileRecord:
    others = sorted(set(reasons) - {INCLUDED})
    return FileRecord(
        path=file.path,
        extension=file.extension,
        label=file.label,
        included=bool(kept),
        reason=INCLUDED if kept else ", ".join(others) or "empty_text",
        num_documents=len(kept),
        num_characters=sum(document.num_characters for document in kept),
        num_lines=sum(document.num_lines for document in kept),
        quality_score=round(sum(q.score for q in qualities) / len(qualities), 1) if qualities else None,
        quality_flags=tuple(sorted({flag for quality in qualities for flag in quality.flags})),
    )
