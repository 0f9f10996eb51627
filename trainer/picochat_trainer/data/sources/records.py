"""One document per record of .jsonl and .csv, a line at a time."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.sources.raw import MAX_DOCUMENT_BYTES, numbered_lines, open_stream, read_utf8

if TYPE_CHECKING:
    import _csv  # the only name of the type of csv.reader()

TEXT_FIELD: Final = "text"
SHOWN_FIELDS: Final = 12
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def jsonl_texts(path: Path, name: str, text_field: str | None = None) -> Iterator[tuple[str, str]]:
    """`name:line` and text of each row; a null text is an empty one. Blank lines are passed over."""
    with open_stream(path, name) as stream:
        for number, line in numbered_lines(stream, name):
            if not line.isspace():
                yield (
                    f"{name}:{number}",
                    _row_text(line, text_field or TEXT_FIELD, f"{name}, line {number}", name),
                )


def csv_texts(path: Path, name: str, text_field: str | None = None) -> Iterator[tuple[str, str]]:
    """`name:line` and text of each row; without a `text` column (where none is asked for) the file is plain text."""
    csv.field_size_limit(MAX_DOCUMENT_BYTES)  # global; its default of 128 KB is shorter than a long document
    with open_stream(path, name) as stream:
        reader = csv.reader(_csv_lines(numbered_lines(stream, name)), strict=True)
        header = _csv_header(reader, name, text_field)
        if header is not None:
            yield from _csv_rows(reader, header, header.index(text_field or TEXT_FIELD), name)
            return
    yield name, read_utf8(path, name)


def select(row: object, field: str) -> object:
    """The value at `field`, a key or a dotted path into nested objects; KeyError where there is none."""
    if isinstance(row, Mapping):
        if field in row:
            return row[field]
        first, dot, rest = field.partition(".")
        if dot and first in row:
            return select(row[first], rest)
    raise KeyError(field)


def _row_text(line: str, field: str, where: str, name: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ContractError(Code.BAD_ROW, f"{where}: not JSON ({error})", param=name) from error
    try:
        value = select(row, field)
    except KeyError as error:
        raise ContractError(
            Code.BAD_ROW,
            f"{where}: expected an object with the field {field!r}, got {_shape(row)}; name its text by text_field",
            param=name,
        ) from error
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ContractError(
            Code.BAD_ROW,
            f"{where}: expected {field!r} to be a string, got {_shape(value)}",
            param=name,
        )
    # Only an escape can smuggle in a lone surrogate, which no UTF-8 file can hold.
    if ("\\ud" in line or "\\uD" in line) and _LONE_SURROGATE.search(value):
        raise ContractError(
            Code.BAD_ROW,
            f"{where}: {field!r} holds half of a surrogate pair; write the whole character",
            param=name,
        )
    return value


def _shape(row: object) -> str:
    if not isinstance(row, Mapping):
        kind = type(row).__name__
        return (
            f"the {kind} {row}" if isinstance(row, int | float) else f"a {kind}"
        )  # lists may be too deep to print
    more = len(row) - SHOWN_FIELDS
    shown = ", ".join(repr(key) for key in list(row)[:SHOWN_FIELDS])
    return f"the fields {shown}{f' and {more} more' if more > 0 else ''}" if row else "an empty object"


def _csv_lines(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if "\r" not in line:
            yield line
            continue
        *whole, rest = line.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        yield from (f"{part}\n" for part in whole)
        if rest:
            yield rest


def _csv_header(reader: "_csv.Reader", name: str, text_field: str | None) -> list[str] | None:
    """The column names, or None where the file is to be read as plain text."""
    try:
        header = next(reader, [])
    except csv.Error as error:
        if text_field is None:
            return None
        raise ContractError(
            Code.BAD_ROW, f"{name}, line 1: no header that is valid CSV ({error})", param=name
        ) from error
    if (text_field or TEXT_FIELD) in header:
        return header
    if text_field is None:
        return None
    columns = ", ".join(map(repr, header[:SHOWN_FIELDS])) or "none"
    raise ContractError(
        Code.BAD_ROW,
        f"{name}, line 1: expected a column {text_field!r}; the columns are {columns}",
        param=name,
    )


def _csv_rows(reader: "_csv.Reader", header: list[str], column: int, name: str) -> Iterator[tuple[str, str]]:
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
                yield f"{name}:{start}", row[column]
            start = reader.line_num + 1
    except csv.Error as error:
        raise ContractError(
            Code.BAD_ROW, f"{name}, line {start}: not valid CSV ({error})", param=name
        ) from error
