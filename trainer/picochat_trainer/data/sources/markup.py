"""Text of .html (its main text, by trafilatura), .pdf (pypdf) and .docx (python-docx). One file is one document.

A scan without a text layer, or a page without text, gives an empty document, which cleaning drops and lists.
"""

import codecs
import io
import logging
import re
import struct
import zipfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.sources.raw import MAX_DOCUMENT_BYTES, decode_utf8, read_document

_DECLARED_CHARSET: Final = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9._:-]{1,40})""", re.I
)
_HEAD_BYTES: Final = 2048  # where HTML says its charset
_HTML_TAG: Final = re.compile(r"<html[\s>]", re.I)
_WINDOWS_1252: Final = {
    byte: bytes([byte]).decode("cp1252")
    for byte in range(0x80, 0xA0)
    if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
"""What browsers read where a page declares ISO 8859-1 or ASCII, in place of control characters."""
_MEMBER_BYTES: Final = 1 << 20  # of an archive's member, unpacked at a time
_PARSE_ERRORS: Final = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    OSError,
    EOFError,
    RecursionError,
    SyntaxError,
    AssertionError,
    NotImplementedError,
    zlib.error,
    struct.error,
)
"""What parsers of untrusted files raise beside their own errors when a file is damaged."""


def html_texts(path: Path, name: str, text_field: str | None = None) -> Iterator[tuple[str, str]]:
    """The main text of a page; where trafilatura sees none, all its text."""
    from trafilatura import extract, html2txt

    _silence("trafilatura")
    page = _html(read_document(path, name), name)
    whole = f"<html><body>{page}</body></html>"
    if not _HTML_TAG.search(page):
        page = whole  # of a piece trafilatura may see a part only
    try:
        text = extract(page, include_comments=False) or html2txt(page) or html2txt(whole)
    except _PARSE_ERRORS as error:
        raise _damaged(name, "an HTML page", error) from error
    yield name, text


def pdf_texts(path: Path, name: str, text_field: str | None = None) -> Iterator[tuple[str, str]]:
    """All pages, joined by blank lines."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, PyPdfError

    _silence("pypdf")
    raw = read_document(path, name)
    pages: list[str] = []
    try:
        reader = PdfReader(io.BytesIO(raw))
        if reader.is_encrypted and not reader.decrypt(""):
            raise ContractError(
                Code.FILE_UNREADABLE, f"{name}: the PDF asks for a password; save it without one", param=name
            )
        for page in reader.pages:
            pages.append(page.extract_text().strip())
    except ContractError:
        raise
    except (PyPdfError, DependencyError, *_PARSE_ERRORS) as error:
        raise _damaged(f"{name}, page {len(pages) + 1}", "a PDF", error, param=name) from error
    yield name, "\n\n".join(page for page in pages if page)


def docx_texts(path: Path, name: str, text_field: str | None = None) -> Iterator[tuple[str, str]]:
    """Paragraphs and tables in the order of the document; a table row is a line, its cells are set apart by tabs."""
    from docx import Document
    from docx.opc.exceptions import OpcError

    raw = read_document(path, name)
    try:
        _check_size(raw, name)
        lines = list(_docx_lines(Document(io.BytesIO(raw))))
    except ContractError:
        raise
    except (zipfile.BadZipFile, OpcError, *_PARSE_ERRORS) as error:
        raise _damaged(name, "a DOCX file", error) from error
    yield name, "\n".join(lines)


def _html(raw: bytes, name: str) -> str:
    """As the charset that the page declares, else as UTF-8; declarations mean what they mean to browsers (WHATWG)."""
    declared = None if raw.startswith(BOM_UTF8) else _DECLARED_CHARSET.search(raw[:_HEAD_BYTES])
    charset = declared[1].decode("ascii").lower() if declared else "utf-8"
    try:
        codec = codecs.lookup(charset).name
        if codec.startswith(
            ("utf-8", "utf-16", "utf-32")
        ):  # UTF-16 could not be read up to where it is declared
            return decode_utf8(raw, name)
        if codec in ("iso8859-1", "ascii"):
            return raw.decode("latin-1").translate(_WINDOWS_1252)
        text = raw.decode(charset)
        text.encode()
        return text
    except (LookupError, UnicodeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name}: declares the charset {charset!r}, but cannot be read as it ({error}); convert it to UTF-8",
            param=name,
        ) from error


def _check_size(raw: bytes, name: str) -> None:
    """Raise where an archive unpacks to too much, or to anything but the sizes that it states."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_DOCUMENT_BYTES:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{name}: unpacks to {size >> 20} MiB, more than the {MAX_DOCUMENT_BYTES >> 20} MiB of one document",
                param=name,
            )
        for entry in archive.infolist():
            with archive.open(entry) as member:
                while member.read(_MEMBER_BYTES):  # ends with an error behind the stated size
                    pass


def _silence(library: str) -> None:
    """Keep a reader's own log off the terminal: it names no file, and what is damaged is said by an error."""
    logging.getLogger(library).setLevel(logging.CRITICAL)


def _docx_lines(container: Any) -> Iterator[str]:
    from docx.table import Table

    for block in container.iter_inner_content():
        if not isinstance(block, Table):
            yield block.text
            continue
        for row in block.rows:
            cells: list[str] = []
            for cell in dict.fromkeys(row.cells):  # a merged cell is given once per column
                cells.append(" ".join(line for line in _docx_lines(cell) if line))
            yield "\t".join(cells)


def _damaged(where: str, what: str, error: BaseException, *, param: str | None = None) -> ContractError:
    return ContractError(
        Code.FILE_UNREADABLE,
        f"{where}: damaged, or not {what} ({type(error).__name__}: {error}); open and save it again",
        param=param or where,
    )
