"""Which files a source means, in what order, and why others are left out."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.data_configs import (
    CORPUS_SUFFIXES,
    ArtifactSource,
    DatasetRef,
    LeftOutSource,
    PydocSource,
)
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.documents import Document

from .reading import documents, file_source, files


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def listed(path: Path, **options: Any) -> dict[str, str | None]:
    return {file.path: file.reason for file in files(file_source(path, **options))}


def test_pydoc_is_one_document_per_topic() -> None:
    found = documents(PydocSource())
    assert len(found) > 70
    assert found[0].path == "pydoc/assert"
    assert "assert_stmt" in found[0].text


def test_a_folder_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", "b.txt", "a/z.md", "a.py", "c.rst", ".hidden.txt", ".git/x.txt")
    names = [d.path for d in documents(file_source(folder))]
    assert names == ["texts/a/z.md", "texts/a.py", "texts/b.txt", "texts/c.rst"]


def test_other_extensions_in_a_folder_are_listed_not_read(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    (tmp_path / "dump.tar.gz").write_bytes(b"")
    found = files(file_source(tmp_path))
    assert [(file.extension, file.documents, file.reason) for file in found] == [
        (".tar.gz", None, "unsupported_extension"),
        (".png", None, "unsupported_extension"),
    ]


def test_include_and_exclude_choose_files_and_list_the_rest(tmp_path: Path) -> None:
    write(tmp_path / "t", "docs/a.md", "docs/old/b.md", "docs/c.txt", "notes.md")
    assert listed(tmp_path / "t", include=("docs/**/*.md",), exclude=("docs/old",)) == {
        "t/docs/a.md": None,
        "t/docs/c.txt": "recipe_excluded",
        "t/docs/old/": "recipe_excluded",
        "t/notes.md": "recipe_excluded",
    }


def test_a_single_file_can_be_excluded_too(tmp_path: Path) -> None:
    write(tmp_path, "a.txt")
    assert listed(tmp_path / "a.txt", exclude=("**",)) == {"a.txt": "recipe_excluded"}


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, "secret.txt", "away/x.txt")
    folder = write(tmp_path / "t", "a.txt")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "c.txt").symlink_to("a.txt")
    (folder / "d.txt").symlink_to("nowhere.txt")
    (folder / "e").symlink_to(tmp_path / "away")
    assert listed(folder) == {
        "t/a.txt": None,
        "t/b.txt": "link_outside_folder",
        "t/c.txt": None,
        "t/d.txt": "missing_source",
        "t/e/": "link_to_folder",
    }


def test_links_that_lead_in_a_circle_are_listed(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", "a.txt")
    (folder / "b.txt").symlink_to("b.txt")
    (folder / "c").symlink_to("d")
    (folder / "d").symlink_to("c")
    assert listed(folder) == {
        "t/a.txt": None,
        "t/b.txt": "missing_source",
        "t/c": "missing_source",
        "t/d": "missing_source",
    }


def test_a_file_name_that_is_not_utf_8_is_written_with_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9"))
    odd.mkdir()
    (odd / Path(os.fsdecode(b"\xff.txt"))).write_text("text")
    (found,) = documents(file_source(folder))
    assert (found.path, found.text) == ("t/caf\\xe9/\\xff.txt", "text")


def test_an_upload_is_read_by_its_digest_and_called_by_its_name(tmp_path: Path) -> None:
    digest = "a" * 64
    (tmp_path / digest).write_text("uploaded")
    source = ArtifactSource(type="artifact", digest=digest, name="notes.md", label="mine", license="CC0-1.0")
    expected = Document(path="notes.md", label="mine", license="CC0-1.0", source=1, text="uploaded")
    assert documents(PydocSource(), source, uploads=tmp_path)[-1] == expected


def test_uploads_of_one_group_are_one_source(tmp_path: Path) -> None:
    (tmp_path / ("a" * 64)).write_text("x")
    grouped = [
        ArtifactSource(type="artifact", digest="a" * 64, name=f"{name}.md", group=group)
        for name, group in (("a", "docs"), ("b", None), ("c", "docs"))
    ]
    assert [file.source for file in files(*grouped, uploads=tmp_path)] == [0, 1, 0]


def test_what_a_client_left_out_is_listed() -> None:
    (found,) = files(LeftOutSource(type="left_out", path="a.txt", reason="recipe_excluded", label="l"))
    assert (found.path, found.reason, found.label, found.documents) == ("a.txt", "recipe_excluded", "l", None)


def test_a_missing_path_is_corpus_missing_unless_it_is_optional(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no dataset source at") as caught:
        documents(file_source(tmp_path / "nowhere"))
    assert caught.value.code is Code.CORPUS_MISSING
    assert listed(tmp_path / "nowhere", optional=True) == {"nowhere": "missing_source"}


def test_a_missing_upload_is_named_by_its_file_name(tmp_path: Path) -> None:
    source = ArtifactSource(type="artifact", digest="b" * 64, name="notes.md")
    with pytest.raises(ContractError, match=r"notes\.md"):
        documents(source, uploads=tmp_path)


def test_a_registered_dataset_is_only_for_the_server() -> None:
    with pytest.raises(ContractError, match="dataset 'd' is registered on a server"):
        files(DatasetRef(type="dataset", name="d"))


def test_a_single_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "image.png.gz")
    with pytest.raises(ContractError, match=r"image\.png\.gz: expected one of \.txt") as caught:
        documents(file_source(tmp_path / "image.png.gz"))
    assert caught.value.code is Code.FILE_UNREADABLE


@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [
        ("a.pdf", "pypdf", "missing_pdf_dependency"),
        ("a.docx.gz", "docx", "missing_docx_dependency"),
        ("a.html", "trafilatura", "missing_html_dependency"),
        ("a.htm", "trafilatura", "missing_html_dependency"),
    ],
)
def test_a_missing_reader_is_a_reason_in_a_folder_and_an_error_for_a_named_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, reason: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "picochat_trainer.data.sources.files.find_spec", lambda m: None if m == module else found(m)
    )
    write(tmp_path / "t", name)
    assert listed(tmp_path / "t") == {f"t/{name}": reason}
    with pytest.raises(ContractError, match=r"pip install 'picochat\[docs\]'") as caught:
        files(file_source(tmp_path / "t" / name))
    assert caught.value.code is Code.MISSING_DEPENDENCY


def test_reading_stops_where_the_consumer_stops(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\nnot json\n')
    (file,) = files(file_source(tmp_path / "rows.jsonl"))
    assert file.documents is not None
    reading = file.documents()
    assert next(reading).text == "one"
    reading.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", CORPUS_SUFFIXES)
def test_every_kind_is_known_in_a_folder(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "t", f"a{suffix.upper()}", f"b{suffix}.zst")
    assert set(listed(tmp_path / "t").values()) == {None}
