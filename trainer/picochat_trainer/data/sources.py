"""Reads the sources of a corpus: Python's own manual, files and folders, uploaded artifacts.

One text file is one document; each row of a `.jsonl` file, and of a `.csv` file with a `text` column, is one.
Paths in the records are relative to the source, so that equal input gives an equal manifest on every machine.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics
from typing import TYPE_CHECKING, Final

from picochat_contract.data_configs import ArtifactSource, FileSource, PydocSource, Source
from picochat_contract.errors import Code, ContractError

if TYPE_CHECKING:
    import _csv  # the only name of the type of csv.reader()

TEXT_FIELD: Final = "text"  # of .jsonl rows and .csv columns
TEXT_EXTENSIONS: Final = (".txt", ".text", ".md", ".py")
EXTENSIONS: Final = (*TEXT_EXTENSIONS, ".jsonl", ".csv")
csv.field_size_limit(1 << 30)  # the default of 128 KB is shorter than a long document


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document as it came, before any filter."""

    path: str
    label: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a source, readable or not."""

    path: str
    label: str | None
    extension: str
    documents: Callable[[], Iterator[Document]] | None
    """Reads them; None where the extension is not one that we read."""


def open_sources(sources: Sequence[Source], *, artifact_path: Callable[[str], Path]) -> Iterator[SourceFile]:
    """The files of `sources` in order; `artifact_path` says where the upload with a digest lies."""
    for source in sources:
        match source:
            case PydocSource():
                yield _pydoc_file()
            case FileSource():
                yield from _files_below(Path(source.path), source.label)
            case ArtifactSource():
                path = artifact_path(source.digest)
                _require_file(path, source.name)
                yield _readable(path, source.name, source.label)


def read_utf8(path: Path, name: str) -> str:
    """Text of a file with Unix line ends and without a byte order mark; `name` is what messages call it."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise ContractError(
            Code.CORPUS_MISSING, f"no file {name}: expected a readable file there", param=name
        ) from error
    except OSError as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name} cannot be read: {error.strerror}; check its permissions",
            param=name,
        ) from error
    return decode_utf8(raw, name)


def decode_utf8(raw: bytes, name: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name}, line {line}: expected UTF-8 text, found byte 0x{raw[error.start]:02x} ({error.reason}); "
            "convert the file to UTF-8",
            param=name,
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _pydoc_file() -> SourceFile:
    def documents() -> Iterator[Document]:
        for topic, text in sorted(topics.topics.items()):
            yield Document(path=f"pydoc/{topic}", label=None, text=text)

    return SourceFile(path="pydoc", label=None, extension="", documents=documents)


def _files_below(path: Path, label: str | None) -> Iterator[SourceFile]:
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file() and not _is_hidden(file, path))
        for file in sorted(files, key=lambda file: file.relative_to(path).parts):
            name = (Path(path.resolve().name) / file.relative_to(path)).as_posix()
            if file.suffix.lower() in EXTENSIONS:
                yield _readable(file, name, label)
            else:
                yield SourceFile(path=name, label=label, extension=file.suffix.lower(), documents=None)
        return
    _require_file(path, str(path))
    yield _readable(path, path.name, label)


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _require_file(path: Path, name: str) -> None:
    if not path.exists():
        raise ContractError(
            Code.CORPUS_MISSING,
            f"no dataset source at {name}: expected a file or folder; check dataset.sources",
            param="dataset.sources",
        )


def _readable(path: Path, name: str, label: str | None) -> SourceFile:
    extension = Path(name).suffix.lower()
    if extension not in EXTENSIONS:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name}: expected one of {', '.join(EXTENSIONS)}, got {extension or 'no extension'!r}; convert it to text",
            param=name,
        )

    def documents() -> Iterator[Document]:
        text = read_utf8(path, name)
        if extension == ".jsonl":
            yield from _jsonl_documents(text, name, label)
        elif extension == ".csv" and (rows := _csv_texts(text, name)) is not None:
            for line, value in rows:
                yield Document(path=f"{name}:{line}", label=label, text=value)
        else:
            yield Document(path=name, label=label, text=text)

    return SourceFile(path=name, label=label, extension=extension, documents=documents)


def _jsonl_documents(text: str, name: str, label: str | None) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ContractError(
                Code.BAD_ROW, f"{name}, line {number}: not JSON ({error})", param=name
            ) from error
        value = row.get(TEXT_FIELD) if isinstance(row, dict) else None
        if not isinstance(value, str) or not _is_encodable(value):
            raise ContractError(
                Code.BAD_ROW,
                f"{name}, line {number}: expected an object whose {TEXT_FIELD!r} is a string of valid Unicode",
                param=name,
            )
        yield Document(path=f"{name}:{number}", label=label, text=value)


def _is_encodable(text: str) -> bool:
    """False for the lone surrogates that JSON escapes can smuggle in: no UTF-8 file can hold them."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _csv_texts(text: str, name: str) -> Iterator[tuple[int, str]] | None:
    """Line number and text of each row, or None where there is no `text` column: then the file is plain text."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
    except csv.Error:
        return None
    if TEXT_FIELD not in header:
        return None
    return _csv_rows(reader, header, name)


def _csv_rows(reader: "_csv.Reader", header: list[str], name: str) -> Iterator[tuple[int, str]]:
    column = header.index(TEXT_FIELD)
    start = reader.line_num + 1
    try:
        for row in reader:
            if row and len(row) != len(header):
                raise ContractError(
                    Code.BAD_ROW,
                    f"{name}, line {start}: expected {len(header)} columns as in the header, got {len(row)}",
                    param=name,
                )
            if row:
                yield start, row[column]
            start = reader.line_num + 1
    except csv.Error as error:
        raise ContractError(
            Code.BAD_ROW, f"{name}, line {start}: not valid CSV ({error})", param=name
        ) from error
