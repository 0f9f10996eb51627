"""One document per row of .parquet, a small batch of a row group at a time, only the text column."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.sources.raw import MAX_DOCUMENT_BYTES, open_seekable
from picochat_trainer.data.sources.records import SHOWN_FIELDS, TEXT_FIELD

BATCH_ROWS: Final = 32
"""Rows unpacked at once: a column of equal texts packs a thousandfold, so memory goes by rows and not by the file.
Of 1 kB rows 256 at once are a fifth faster, of 4 MB rows they take 3.5 GB instead of 0.6."""
PAGE_BUFFER_BYTES: Final = 1 << 20
"""Read column chunks page by page: without it a chunk, which may be a whole file, is loaded at once."""


def parquet_texts(path: Path, name: str, text_field: str | None = None) -> Iterator[tuple[str, str]]:
    """`name:row` (from 1) and text of each row; a null text is an empty one."""
    field, row = text_field or TEXT_FIELD, 0
    with open_seekable(path, name) as stream:
        try:
            with pq.ParquetFile(stream, buffer_size=PAGE_BUFFER_BYTES, pre_buffer=False) as file:
                keys = _keys(file.schema_arrow, field, name)
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[field], use_threads=False):
                    for text in _texts(_column(batch, keys), name, row):
                        row += 1
                        _check_length(text, name, row)
                        yield f"{name}:{row}", text
        except (pa.ArrowException, OSError) as error:
            raise ContractError(
                Code.FILE_UNREADABLE,
                f"{name}, after row {row}: damaged, or not a Parquet file ({error}); fetch or write it again",
                param=name,
            ) from error


def _check_length(text: str, name: str, row: int) -> None:
    if len(text) > MAX_DOCUMENT_BYTES:
        raise ContractError(
            Code.BAD_ROW,
            f"{name}, row {row}: longer than {MAX_DOCUMENT_BYTES >> 20} MiB; expected one document per row",
            param=name,
        )


def _keys(schema: Any, field: str, name: str) -> list[str]:
    """`field` as the names that lead to it; raise where it is missing or holds no text."""
    keys = [field] if field in schema.names else field.split(".")
    kind: Any = schema.field(keys[0]).type if keys[0] in schema.names else None
    for key in keys[1:]:
        inner = kind.field(key) if pa.types.is_struct(kind) and kind.get_field_index(key) >= 0 else None
        kind = inner.type if inner is not None else None
    if kind is None:
        columns = ", ".join(map(repr, schema.names[:SHOWN_FIELDS])) or "none"
        raise ContractError(
            Code.BAD_ROW,
            f"{name}: expected a column {field!r}; the columns are {columns}; name the one with the text by text_field",
            param=name,
        )
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_kind(value) for is_kind in _TEXT_KINDS):
        raise ContractError(
            Code.BAD_ROW,
            f"{name}: expected the column {field!r} to hold strings, it holds {kind}",
            param=name,
        )
    return keys


_TEXT_KINDS: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)


def _column(batch: Any, keys: list[str]) -> Any:
    column = batch.column(keys[0])
    return pc.struct_field(column, keys[1:]) if len(keys) > 1 else column


def _texts(column: Any, name: str, before: int) -> list[str]:
    """Texts of a batch; `before` rows of the file lie before it."""
    try:
        return [text or "" for text in column.to_pylist()]
    except UnicodeDecodeError:
        return [_text(value, name, before + number) for number, value in enumerate(column, start=1)]


def _text(value: Any, name: str, row: int) -> str:
    try:
        return value.as_py() or ""
    except UnicodeDecodeError as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{name}, row {row}: expected UTF-8 text, found byte 0x{error.object[error.start]:02x} ({error.reason})",
            param=name,
        ) from error
