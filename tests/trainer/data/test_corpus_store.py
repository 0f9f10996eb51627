"""Documents of a corpus come out as they were built, from shards or from a text file, and damage is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.data_configs import CleaningConfig, FileSource
from picochat_contract.errors import Code, ContractError
from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.building import batches, second_pass
from picochat_trainer.data.corpus import build_corpus
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.sources import open_sources

TEXTS = [f"Document number {number} has {number} things to say." for number in range(9)]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of three shards."""
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 100)
    monkeypatch.setattr(second_pass, "SHARD_BYTES", 100)
    source = FileSource(type="file", path=str(tmp_path / "rows.jsonl"), label="mine", license="CC0-1.0")
    Path(source.path).write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    build_corpus(
        open_sources([source], artifact_path=Path), [source], CleaningConfig(), 0, tmp_path / "run", 1
    )
    return tmp_path / "run"


def test_documents_come_in_order_with_what_is_known_of_them(run_dir: Path) -> None:
    store = CorpusStore.at(run_dir)
    found = list(store.documents())
    assert [document.text for document in found] == TEXTS
    assert [document.index for document in found] == list(range(9)) == list(range(store.num_documents or 0))
    first = found[0]
    assert (first.document_id, first.path, first.label, first.license, first.source) == (
        *("doc-000001", "rows.jsonl:1", "mine", "CC0-1.0"),
        0,
    )


def test_some_shards_give_their_documents_with_their_places(run_dir: Path) -> None:
    store = CorpusStore.at(run_dir)
    assert len(store.shards) == 3
    assert [document.index for document in store.documents(store.shards[1:2])] == [3, 4, 5]


def test_the_digest_is_that_of_the_manifest(run_dir: Path) -> None:
    assert CorpusStore.at(run_dir).sha256 == file_sha256(run_dir / layout.CORPUS_MANIFEST)


def test_a_changed_shard_is_found(run_dir: Path) -> None:
    store = CorpusStore.at(run_dir)
    store.check_digests()
    (run_dir / store.shards[2]).write_bytes(b"PAR1")
    with pytest.raises(ContractError, match=r"part-00002\.parquet is missing or is not the file") as caught:
        store.check_digests()
    assert caught.value.code is Code.INPUT_CHANGED
    with pytest.raises(ContractError, match="is no corpus shard"):
        list(store.documents())


@pytest.mark.parametrize("spans", [True, False])
def test_a_bare_text_file_is_a_corpus_too(tmp_path: Path, spans: bool) -> None:
    (tmp_path / "corpus.txt").write_text("one\n\ntwo\n")
    if spans:
        documents = [
            {"document_id": "a", "path": "a.txt", "char_start": 0, "char_end": 3},
            {"document_id": "b", "path": "b.txt", "char_start": 5, "char_end": 8},
        ]
        write_manifest(tmp_path, {"num_documents": 2}, documents)
    store = CorpusStore.at(tmp_path)
    assert [document.text for document in store.documents()] == (
        ["one", "two"] if spans else ["one\n\ntwo\n"]
    )


def write_manifest(folder: Path, stats: dict[str, Any], documents: list[dict[str, Any]]) -> None:
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": [],
        "stats": stats,
        "documents": documents,
    }
    (folder / layout.CORPUS_MANIFEST).write_text(json.dumps(manifest))


def test_an_empty_corpus_has_no_documents(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"num_documents": 0}, [])
    assert list(CorpusStore.at(tmp_path).documents()) == []


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, Code.CORPUS_MISSING),
        ({"corpus.txt": " \n"}, Code.CORPUS_EMPTY),
        ({"corpus_manifest.json": "{}"}, Code.FILE_UNREADABLE),
    ],
)
def test_what_is_no_corpus_is_named(tmp_path: Path, files: dict[str, str], code: Code) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ContractError) as caught:
        list(CorpusStore.at(tmp_path).documents())
    assert caught.value.code is code


def test_a_text_file_with_its_manifest_means_the_documents_of_the_manifest(run_dir: Path) -> None:
    store = CorpusStore.of(run_dir / layout.CORPUS, run_dir / layout.CORPUS_MANIFEST)
    assert [document.text for document in store.documents()] == TEXTS
    assert store.num_bytes == CorpusStore.at(run_dir).num_bytes


def test_a_text_file_that_is_not_the_manifests_is_refused(run_dir: Path) -> None:
    (run_dir / layout.CORPUS).write_text("edited by hand\n")
    with pytest.raises(ContractError, match=r"corpus\.txt is not the text of .*corpus_manifest") as caught:
        CorpusStore.of(run_dir / layout.CORPUS, run_dir / layout.CORPUS_MANIFEST)
    assert caught.value.code is Code.INPUT_CHANGED


def test_a_manifest_that_is_not_there_is_missed(run_dir: Path) -> None:
    with pytest.raises(ContractError, match=r"no corpus manifest at .*nowhere\.json") as caught:
        CorpusStore.of(run_dir / layout.CORPUS, run_dir / "nowhere.json")
    assert caught.value.code is Code.CORPUS_MISSING
