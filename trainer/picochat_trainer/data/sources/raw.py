"""Bytes of source files, decompressed on the way, and UTF-8 text that names the line where it is not.

Nothing here reads a whole file except where a whole file is one document, and then at most MAX_DOCUMENT_BYTES.
"""

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import pyarrow as pa
from picochat_contract.data_configs import COMPRESSIONS, split_suffix
from picochat_contract.errors import Code, ContractError

MAX_DOCUMENT_BYTES: Final = 256 << 20
"""Of one document as it lies in its file: a whole text file, one line of JSONL, one CSV record."""
_BUFFER_BYTES: Final = 1 << 20
_IN_MEMORY_BYTES: Final = 64 << 20  # a decompressed file that needs seeking goes to disk beyond this
READ_ERRORS: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a damaged file raises, whatever its compression."""
_FOREIGN_BOMS: Final = (
    (BOM_UTF32_LE, "UTF-32"),  # begins with the mark of UTF-16, so it is looked for first
    (BOM_UTF32_BE, "UTF-32"),
    (BOM_UTF16_LE, "UTF-16"),
    (BOM_UTF16_BE, "UTF-16"),
)


@contextmanager
def open_stream(path: Path, name: str) -> Iterator[BinaryIO]:
    """The decompressed bytes of a file; what `name` ends with says how they are compressed."""
    try:
        raw = path.open("rb", buffering=_BUFFER_BYTES)
    except FileNotFoundError as error:
        raise ContractError(
            Code.CORPUS_MISSING, f"no file {name}: expected a readable file there", param=name
        ) from error
    except IsADirectoryError as error:
        raise ContractError(
            Code.FILE_UNREADABLE, f"{name} is a folder; expected a file", param=name
        ) from error
    except OSError as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name} cannot be read: {error.strerror}; check its permissions",
            param=name,
        ) from error
    with raw, _decompressed(raw, _compression(name)) as stream:
        yield stream


@contextmanager
def open_seekable(path: Path, name: str) -> Iterator[BinaryIO]:
    """The decompressed bytes of a file whose reader jumps about in it; a compressed one goes to a temporary file."""
    with open_stream(path, name) as stream:
        if not _compression(name):
            yield stream
            return
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as spooled:
            try:
                shutil.copyfileobj(stream, spooled, _BUFFER_BYTES)
            except READ_ERRORS as error:
                raise broken_file(name, error) from error
            spooled.seek(0)
            yield cast(BinaryIO, spooled)


def read_document(path: Path, name: str) -> bytes:
    """All bytes of a file that is one document."""
    with open_stream(path, name) as stream:
        try:
            raw = stream.read(MAX_DOCUMENT_BYTES + 1)
        except READ_ERRORS as error:
            raise broken_file(name, error) from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name} is one document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; split it, or write one record per "
            "document as .jsonl or .parquet",
            param=name,
        )
    return raw


def read_utf8(path: Path, name: str) -> str:
    """Text of a file with Unix line ends and without a byte order mark; `name` is what messages call it, and its
    suffix says how the file is compressed."""
    return decode_utf8(read_document(path, name), name)


def decode_utf8(raw: bytes, name: str) -> str:
    refuse_foreign_bom(raw, name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise wrong_encoding(name, raw.count(b"\n", 0, error.start) + 1, error) from error
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def numbered_lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """Lines of UTF-8 text with their 1-based numbers and line ends; memory holds one line."""
    number = 0
    while True:
        try:
            raw = stream.readline(MAX_DOCUMENT_BYTES + 1)
        except READ_ERRORS as error:
            raise broken_file(name, error, after=f", after line {number}") from error
        if not raw:
            return
        number += 1
        if number == 1:
            refuse_foreign_bom(raw, name)
            raw = raw.removeprefix(BOM_UTF8)
        if len(raw) > MAX_DOCUMENT_BYTES:
            raise ContractError(
                Code.BAD_ROW,
                f"{name}, line {number}: longer than {MAX_DOCUMENT_BYTES >> 20} MiB; expected one record per line",
                param=name,
            )
        try:
            yield number, raw.decode()
        except UnicodeDecodeError as error:
            raise wrong_encoding(name, number, error) from error


def refuse_foreign_bom(raw: bytes, name: str) -> None:
    for mark, encoding in _FOREIGN_BOMS:
        if raw.startswith(mark):
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{name}, line 1: expected UTF-8 text, found the byte order mark of {encoding}; convert the file to "
                "UTF-8",
                param=name,
            )


def wrong_encoding(name: str, line: int, error: UnicodeDecodeError) -> ContractError:
    return ContractError(
        Code.FILE_UNREADABLE,
        f"{name}, line {line}: expected UTF-8 text, found byte 0x{error.object[error.start]:02x} ({error.reason}); "
        "convert the file to UTF-8",
        param=name,
    )


def broken_file(name: str, error: BaseException, *, after: str = "") -> ContractError:
    kind = _compression(name).removeprefix(".")
    what = f"the {kind} data is damaged or cut off" if kind else "the file cannot be read"
    return ContractError(
        Code.FILE_UNREADABLE, f"{name}{after}: {what} ({error}); fetch or write it again", param=name
    )


def _compression(name: str) -> str:
    compression = split_suffix(name)[1]
    return compression if compression in COMPRESSIONS else ""


def _decompressed(raw: BinaryIO, compression: str) -> BinaryIO:
    match compression:
        case ".gz":
            return cast(BinaryIO, io.BufferedReader(gzip.GzipFile(fileobj=raw), _BUFFER_BYTES))
        case ".bz2":
            return cast(BinaryIO, bz2.BZ2File(raw))
        case ".xz":
            return cast(BinaryIO, lzma.LZMAFile(raw))
        case ".zst":
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
            return cast(BinaryIO, io.BufferedReader(stream, _BUFFER_BYTES))
        case _:
            return raw
