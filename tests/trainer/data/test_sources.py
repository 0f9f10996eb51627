"""What is read as a document, and how every unreadable source is named."""

import json
from pathlib import Path

import pytest
from picochat_contract.data_configs import ArtifactSource, FileSource, PydocSource, Source
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.sources import Document, open_sources


def documents(*sources: Source, uploads: Path = Path("none")) -> list[Document]:
    files = open_sources(sources, artifact_path=lambda digest: uploads / digest)
    return [document for file in files if file.documents for document in file.documents()]


def file_source(path: Path) -> FileSource:
    return FileSource(type="file", path=str(path))


def test_pydoc_is_one_document_per_topic() -> None:
    found = documents(PydocSource())
    assert len(found) > 70
    assert found[0].path == "pydoc/assert"
    assert "assert_stmt" in found[0].text


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    for name in ["b.txt", "a/z.md", "a.py", ".hidden.txt", ".git/x.txt"]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert [d.path for d in documents(file_source(folder))] == ["texts/a/z.md", "texts/a.py", "texts/b.txt"]


def test_other_extensions_in_a_folder_are_listed_not_read(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    files = list(open_sources([file_source(tmp_path)], artifact_path=Path))
    assert [(file.extension, file.documents) for file in files] == [(".png", None)]


def test_each_jsonl_row_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n\n{"text": "two", "id": 2}\n')
    found = documents(file_source(tmp_path / "rows.jsonl"))
    assert [(d.path, d.text) for d in found] == [("rows.jsonl:1", "one"), ("rows.jsonl:3", "two")]


def test_csv_rows_are_documents_where_there_is_a_text_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"first\nlines"\n2,second\n')
    found = documents(file_source(tmp_path / "a.csv"))
    assert [(d.path, d.text) for d in found] == [("a.csv:2", "first\nlines"), ("a.csv:4", "second")]


def test_csv_without_a_text_column_is_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    assert [d.text for d in documents(file_source(tmp_path / "a.csv"))] == ["x,y\n1,2\n"]


def test_line_ends_and_byte_order_marks_are_normalised(tmp_path: Path) -> None:
    (tmp_path / "dos.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    assert documents(file_source(tmp_path / "dos.txt"))[0].text == "one\ntwo\nthree"


def test_an_upload_is_read_by_its_digest_and_called_by_its_name(tmp_path: Path) -> None:
    digest = "a" * 64
    (tmp_path / digest).write_text("uploaded")
    source = ArtifactSource(type="artifact", digest=digest, name="notes.md", label="mine")
    assert documents(source, uploads=tmp_path) == [Document(path="notes.md", label="mine", text="uploaded")]


def test_a_missing_path_is_corpus_missing(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no dataset source at") as caught:
        documents(file_source(tmp_path / "nowhere"))
    assert caught.value.code is Code.CORPUS_MISSING


def test_a_missing_upload_is_named_by_its_file_name(tmp_path: Path) -> None:
    source = ArtifactSource(type="artifact", digest="b" * 64, name="notes.md")
    with pytest.raises(ContractError, match=r"notes\.md"):
        documents(source, uploads=tmp_path)


def test_wrong_encoding_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("one\ntwo\ncaf\u00e9\n".encode("latin-1"))
    with pytest.raises(ContractError, match=r"latin\.txt, line 3: expected UTF-8") as caught:
        documents(file_source(tmp_path / "latin.txt"))
    assert caught.value.code is Code.FILE_UNREADABLE


def test_a_single_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "paper.pdf").write_bytes(b"%PDF")
    with pytest.raises(ContractError, match=r"paper\.pdf: expected one of \.txt") as caught:
        documents(file_source(tmp_path / "paper.pdf"))
    assert caught.value.code is Code.FILE_UNREADABLE


@pytest.mark.parametrize(
    "line", ["not json", "[" * 100_000, "[1]", '{"body": "x"}', '{"text": 5}', json.dumps({"text": "\ud800"})]
)
def test_a_bad_jsonl_row_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "good"}\n' + line + "\n")
    with pytest.raises(ContractError, match=r"rows\.jsonl, line 2") as caught:
        documents(file_source(tmp_path / "rows.jsonl"))
    assert caught.value.code is Code.BAD_ROW


@pytest.mark.parametrize("row", ["1,two,three", 'x,"open'])
def test_a_bad_csv_row_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "a.csv").write_text(f"id,text\n1,fine\n{row}\n")
    with pytest.raises(ContractError, match=r"a\.csv, line 3") as caught:
        documents(file_source(tmp_path / "a.csv"))
    assert caught.value.code is Code.BAD_ROW
