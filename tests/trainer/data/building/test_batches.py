"""Batches are cut by the documents alone, however far the reader is ahead."""

from collections.abc import Iterator

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.building import batches
from picochat_trainer.data.building.batches import Batch, read_batches
from picochat_trainer.data.documents import Document
from picochat_trainer.data.sources import SourceFile


def file(path: str, source: int, num: int, *, fail: bool = False) -> SourceFile:
    def documents() -> Iterator[Document]:
        for number in range(num):
            yield Document(path=f"{path}:{number}", text="x" * 10, source=source)
        if fail:
            raise ContractError(Code.BAD_ROW, f"{path} is broken", param=path)

    return SourceFile(
        path=path, source=source, label=None, license=None, extension=".txt", documents=documents
    )


def read(
    files: list[SourceFile], *, limited: tuple[int, ...] = (), full: tuple[int, ...] = ()
) -> list[Batch]:
    return list(read_batches(iter(files), limited=frozenset(limited), is_full=lambda source: source in full))


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 30)


def test_batches_run_over_files_and_sources() -> None:
    found = read([file("a", 0, 2), file("b", 1, 2), file("c", 2, 1)])
    assert [batch.documents.paths for batch in found] == [["a:0", "a:1", "b:0"], ["b:1", "c:0"]]
    assert [[number for number, _ in batch.opened] for batch in found] == [[0, 1], [2]]
    assert [batch.number for batch in found] == [0, 1]


def test_a_source_with_a_limit_has_batches_of_its_own() -> None:
    found = read([file("a", 0, 2), file("b", 1, 2), file("c", 2, 1)], limited=(1,))
    assert [batch.documents.paths for batch in found] == [["a:0", "a:1"], ["b:0", "b:1"], ["c:0"]]


def test_behind_a_limit_one_document_is_read_and_no_file() -> None:
    found = read([file("a", 0, 5), file("b", 0, 5), file("c", 1, 1)], limited=(0,), full=(0,))
    assert [batch.documents.paths for batch in found] == [["a:0"], ["c:0"]]
    assert [number for batch in found for number, _ in batch.opened] == [0, 1, 2]


def test_a_failure_comes_behind_the_documents_before_it() -> None:
    found = read([file("a", 0, 2, fail=True), file("b", 1, 1)])
    assert (found[0].documents.paths, found[0].failure is not None) == (["a:0", "a:1"], True)
    assert found[1].documents.paths == ["b:0"]


def test_behind_a_failure_no_file_of_the_source_is_read() -> None:
    found = read([file("a", 0, 1, fail=True), file("b", 0, 1), file("c", 1, 1)])
    assert [batch.documents.paths for batch in found] == [["a:0"], ["c:0"]]


def test_a_file_that_is_not_read_is_a_row_with_its_reason() -> None:
    left_out = SourceFile(
        path="c/x.bin",
        source=0,
        label=None,
        license=None,
        extension=".bin",
        documents=None,
        reason="unsupported_extension",
    )
    (batch,) = read([left_out])
    assert (batch.documents.paths, batch.documents.reasons) == (["c/x.bin"], ["unsupported_extension"])
