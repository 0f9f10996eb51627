"""One document per record: which field, and how a bad record is named."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.sources import columnar

from .reading import documents, file_source, files


def test_each_jsonl_row_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 2}\n{"text": null}')
    found = documents(file_source(tmp_path / "rows.jsonl"))
    assert [(d.path, d.text) for d in found] == [
        ("rows.jsonl:1", "one"),
        ("rows.jsonl:3", "two"),
        ("rows.jsonl:4", ""),
    ]


@pytest.mark.parametrize(
    ("field", "row"),
    [
        ("body", {"body": "x"}),
        ("meta.page.body", {"meta": {"page": {"body": "x"}}}),
        ("meta.body", {"meta.body": "x", "meta": {"body": "y"}}),
    ],
)
def test_the_text_field_may_be_a_path_into_the_row(tmp_path: Path, field: str, row: object) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert [d.text for d in documents(file_source(tmp_path / "rows.jsonl", text_field=field))] == ["x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "got a list"),
        ('{"body": "x"}', "with the field 'text', got the fields 'body'"),
        ("{}", "an empty object"),
        ('{"text": 5}', "to be a string, got the int 5$"),
        ('{"text": {"a": 1}}', "to be a string, got the fields 'a'$"),
        ('{"text": ["a"]}', "to be a string, got a list$"),
        (json.dumps({"text": "\ud800"}), "holds half of a surrogate pair"),
    ],
)
def test_a_bad_jsonl_row_is_named_by_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(ContractError, match=rf"rows\.jsonl, line 2: .*{message}") as caught:
        documents(file_source(tmp_path / "rows.jsonl"))
    assert caught.value.code is Code.BAD_ROW


def test_a_nested_field_that_is_missing_lists_the_outer_fields(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"meta": {"b": 1}, **{f"k{n}": n for n in range(20)}}))
    with pytest.raises(
        ContractError, match=r"'meta\.a', got the fields 'meta', .* and 9 more; .* by text_field"
    ):
        documents(file_source(tmp_path / "rows.jsonl", text_field="meta.a"))


def test_csv_rows_are_documents_where_there_is_a_text_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'id,text\r\n1,"first\r\nlines"\r\n\r\n2,second\r\n')
    found = documents(file_source(tmp_path / "a.csv"))
    assert [(d.path, d.text) for d in found] == [("a.csv:2", "first\nlines"), ("a.csv:5", "second")]


def test_csv_with_the_line_ends_of_an_old_mac_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\r1,one\r2,two")
    assert [d.text for d in documents(file_source(tmp_path / "a.csv"))] == ["one", "two"]


def test_a_csv_column_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id,body\n1,{'long ' * 40_000}\n")
    (found,) = documents(file_source(tmp_path / "a.csv", text_field="body"))
    assert len(found.text) == 200_000
    with pytest.raises(
        ContractError, match=r"a\.csv, line 1: expected a column 'text'; the columns are 'id', 'body'"
    ):
        documents(file_source(tmp_path / "a.csv", text_field="text"))


@pytest.mark.parametrize("content", ["x,y\n1,2\n", 'no "header" here\n', ""])
def test_csv_without_a_text_column_is_plain_text(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert [d.text for d in documents(file_source(tmp_path / "a.csv"))] == [content]


@pytest.mark.parametrize("row", ["1,two,three", 'x,"open'])
def test_a_bad_csv_row_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n1,fine\n{row}\n")
    with pytest.raises(ContractError, match=r"a\.csv, line 3") as caught:
        documents(file_source(tmp_path / "a.csv"))
    assert caught.value.code is Code.BAD_ROW


TEXTS = ["one", None, "three"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS, pa.string_view()),
        pa.array(TEXTS).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_each_parquet_row_is_a_document(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"id": [1, 2, 3], "text": column}), tmp_path / "a.parquet", row_group_size=2)
    found = documents(file_source(tmp_path / "a.parquet"))
    assert [(d.path, d.text) for d in found] == [
        ("a.parquet:1", "one"),
        ("a.parquet:2", ""),
        ("a.parquet:3", "three"),
    ]


def test_a_parquet_text_field_goes_into_structs(tmp_path: Path) -> None:
    rows = [{"meta": {"page": {"body": "x", "n": 1}}}, {"meta": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = documents(file_source(tmp_path / "a.parquet", text_field="meta.page.body"))
    assert [d.text for d in found] == ["x", ""]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (None, "expected a column 'text'; the columns are 'id', 'tags', 'meta'"),
        ("id", "column 'id' to hold strings, it holds int64"),
        ("tags", "column 'tags' to hold strings, it holds list"),
        ("meta.b", "expected a column 'meta.b'"),
        ("id.a", "expected a column 'id.a'"),
    ],
)
def test_a_parquet_column_without_text_is_refused(tmp_path: Path, field: str | None, message: str) -> None:
    table = pa.Table.from_pylist([{"id": 1, "tags": ["x"], "meta": {"a": "x"}}])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ContractError, match=message) as caught:
        documents(file_source(tmp_path / "a.parquet", text_field=field))
    assert caught.value.code is Code.BAD_ROW


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 1000, "y"] * 600}), tmp_path / "a.parquet", compression="none")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ContractError, match=r"a\.parquet, after row 0: damaged, or not a Parquet file"
    ) as caught:
        documents(file_source(tmp_path / "a.parquet"))
    assert caught.value.code is Code.FILE_UNREADABLE


def test_parquet_text_that_is_not_utf8_is_named_by_its_row(tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"good", b"caf\xe9"], pa.binary()).buffers())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    with pytest.raises(ContractError, match=r"a\.parquet, row 2: expected UTF-8 text, found byte 0xe9"):
        documents(file_source(tmp_path / "a.parquet"))


def test_a_parquet_row_has_the_limit_of_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "MAX_DOCUMENT_BYTES", 10)
    pq.write_table(pa.table({"text": ["short", "far too long"]}), tmp_path / "a.parquet")
    with pytest.raises(ContractError, match=r"a\.parquet, row 2: longer than") as caught:
        documents(file_source(tmp_path / "a.parquet"))
    assert caught.value.code is Code.BAD_ROW


def test_parquet_rows_are_unpacked_a_few_at_a_time(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 1_000_000] * 300}), tmp_path / "a.parquet")
    (file,) = files(file_source(tmp_path / "a.parquet"))
    assert file.documents is not None
    before = pa.total_allocated_bytes()
    reading = file.documents()
    next(reading)
    assert pa.total_allocated_bytes() - before < 80 << 20
    reading.close()  # type: ignore[attr-defined]
