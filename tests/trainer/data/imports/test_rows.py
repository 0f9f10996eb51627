"""Imports of Hugging Face datasets from local files: what is written, what is skipped, how they go on."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.imports import hub, rows
from picochat_trainer.data.imports.hub import DatasetRequest, HubRows
from picochat_trainer.data.imports.journal import NAME, Journal
from picochat_trainer.data.imports.outputs import import_report, write_out
from picochat_trainer.data.imports.rows import ImportRequest, import_rows


def text(number: int) -> str:
    return f"Document number {number} of the import."


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """45 rows in two Parquet files; every fifth one is short."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for index, numbers in enumerate((range(20), range(20, 45))):
        texts = [text(n) if n % 5 else "short" for n in numbers]
        table = pa.table({"text": texts, "meta": [{"body": text(n)} for n in numbers]})
        pq.write_table(table, folder / f"train-{index}.parquet", row_group_size=7)
    return folder


def request(folder: Path, out: Path, **options: Any) -> ImportRequest:
    return ImportRequest(
        **{
            "dataset": DatasetRequest(dataset=str(folder)),
            "documents_dir": out,
            "max_rows": 0,
            "document_shard_rows": 8,
            **options,
        }
    )


@contextmanager
def killed_after(monkeypatch: pytest.MonkeyPatch, num_rows: int) -> Iterator[None]:
    """Within this, reading ends in an interrupt after so many rows."""
    after = HubRows.after

    @contextmanager
    def interrupted(self: HubRows, *arguments: Any) -> Iterator[Iterator[dict[str, Any]]]:
        def until(found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            for _ in range(num_rows):
                yield next(found)
            raise KeyboardInterrupt

        with after(self, *arguments) as found:
            yield until(found)

    with monkeypatch.context() as patch:
        patch.setattr(HubRows, "after", interrupted)
        with pytest.raises(KeyboardInterrupt):
            yield


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != NAME}


def test_every_long_row_is_one_record(split: Path, tmp_path: Path) -> None:
    imported = import_rows(request(split, tmp_path / "out"))
    assert [number for number, _ in imported.texts()] == [n for n in range(45) if n % 5]
    assert dict(imported.texts())[44] == text(44)
    assert (imported.rows_seen, imported.num_documents, imported.skipped) == (45, 36, {"below_min_chars": 9})
    assert [shard.num_documents for shard in imported.shards] == [8, 8, 8, 8, 4]
    assert imported.num_characters == sum(len(text(n)) for n in range(45) if n % 5)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("num_rows", [3, 11, 33])
def test_an_interrupted_import_ends_like_one_that_was_not(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool, num_rows: int
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = DatasetRequest(dataset=str(split), streaming=streaming)
    whole = import_rows(request(split, tmp_path / "whole", dataset=dataset))
    again = request(split, tmp_path / "again", dataset=dataset)
    with killed_after(monkeypatch, num_rows):
        import_rows(again)
    identity = rows._identity(again, hub.open_dataset(dataset))
    journal = Journal.open(tmp_path / "again", identity, resume=True)
    assert len(journal.shards) == num_rows * 4 // 5 // 8
    assert all((shard.position is not None) == streaming for shard in journal.shards)
    (tmp_path / "again/.shard-000009.parquet.partial").write_bytes(b"half written")
    (tmp_path / "again/shard-000009.parquet").write_bytes(b"not in the journal")
    resumed = import_rows(again)
    assert resumed.shards == whole.shards
    assert import_rows(again).shards == whole.shards
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_the_rows_that_were_taken_over_are_not_read_again(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(monkeypatch, 33):
        import_rows(request(split, tmp_path / "out"))
    judged: list[str] = []
    judge = rows._judge
    monkeypatch.setattr(rows, "_judge", lambda row, *rest: judged.append(row["text"]) or judge(row, *rest))
    import_rows(request(split, tmp_path / "out"))
    assert judged[0] == "short"
    assert judged[1] == text(31)
    assert len(judged) == 15


def test_more_rows_may_be_asked_for_on_the_way_but_not_fewer(split: Path, tmp_path: Path) -> None:
    first = import_rows(request(split, tmp_path / "out", max_rows=20))
    assert (first.rows_seen, first.num_documents) == (20, 16)
    more = import_rows(request(split, tmp_path / "out", max_rows=30))
    assert (more.rows_seen, more.num_documents) == (30, 24)
    with pytest.raises(ContractError, match="has read 30 rows already, more than --max-rows 10"):
        import_rows(request(split, tmp_path / "out", max_rows=10))


def test_an_unfinished_import_of_something_else_is_refused(split: Path, tmp_path: Path) -> None:
    import_rows(request(split, tmp_path / "out"))
    other = request(split, tmp_path / "out", min_chars=1, text_column="meta.body")
    with pytest.raises(
        ContractError, match=r"another text_column, min_chars .*start again with --no-resume"
    ) as caught:
        import_rows(other)
    assert caught.value.code is Code.INPUT_CHANGED
    assert import_rows(replace(other, resume=False)).num_documents == 45


def test_files_that_changed_are_another_import(split: Path, tmp_path: Path) -> None:
    import_rows(request(split, tmp_path / "out"))
    pq.write_table(pa.table({"text": [text(1)]}), split / "train-1.parquet")
    with pytest.raises(ContractError, match="another content"):
        import_rows(request(split, tmp_path / "out"))


@pytest.mark.parametrize("damage", ["torn", "gone", "junk", "empty"])
def test_a_damaged_journal_is_mended_or_refused(split: Path, tmp_path: Path, damage: str) -> None:
    whole = import_rows(request(split, tmp_path / "out"))
    journal = tmp_path / "out" / NAME
    match damage:
        case "torn":
            journal.write_bytes(journal.read_bytes()[:-20])
        case "empty":
            journal.write_bytes(b"")
        case "junk":
            journal.write_text("{}\n")
        case "gone":
            (tmp_path / "out/shard-000001.parquet").unlink()
    if damage in ("torn", "empty"):
        for _ in range(2):  # what is added to a mended journal can be read again
            assert import_rows(request(split, tmp_path / "out")).shards == whole.shards
    else:
        with pytest.raises(ContractError, match="start again with --no-resume"):
            import_rows(request(split, tmp_path / "out"))


def test_a_new_import_removes_the_shards_of_the_old_one_and_nothing_else(split: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_rows(request(split, out)).journal.close()
    (out / "notes.txt").write_text("mine")
    import_rows(request(split, out, max_rows=5)).journal.close()
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "shard-000000.parquet"]


def jsonl(tmp_path: Path, *values: Any) -> DatasetRequest:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return DatasetRequest(dataset="json", data_files=(str(path),))


def test_each_row_says_why_it_was_left_out(tmp_path: Path) -> None:
    dataset = jsonl(tmp_path, {"t": {"b": text(1)}}, {"t": {"b": None}}, {"t": {"b": " short "}}, {"t": None})
    imported = import_rows(request(tmp_path, tmp_path / "out", dataset=dataset, text_column="t.b"))
    assert [record.reason for shard in imported.shards for record in shard.rows] == [
        "written",
        "text_column_not_string",
        "below_min_chars",
        "missing_text_column",
    ]


def test_a_lone_surrogate_is_a_reason(tmp_path: Path) -> None:
    assert rows._judge({"text": "\ud800 and more"}, "text", 1)[0] == "invalid_unicode"


def test_no_document_at_all_names_the_columns(split: Path, tmp_path: Path) -> None:
    imported = import_rows(request(split, tmp_path / "out", text_column="body"))
    assert list((tmp_path / "out").glob("*.parquet")) == []
    with pytest.raises(
        ContractError, match=r"none of the 45 rows .*45 missing_text_column.*'text', 'meta'"
    ) as caught:
        imported.require_documents()
    assert caught.value.code is Code.CORPUS_EMPTY


@pytest.mark.parametrize("streaming", [True, False])
def test_a_wrong_split_lists_those_that_there_are(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = DatasetRequest(dataset=str(split), split="test", streaming=streaming)
    with pytest.raises(ContractError, match=r"cannot open split 'test' .*\['train'\]"):
        import_rows(request(split, tmp_path / "out", dataset=dataset))


def test_a_wrong_config_lists_those_that_there_are(split: Path, tmp_path: Path) -> None:
    dataset = DatasetRequest(dataset=str(split), config="small")
    with pytest.raises(ContractError, match=r"'small' not found. Available: \['default'\]"):
        import_rows(request(split, tmp_path / "out", dataset=dataset))


def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ContractError, match=r"pip install 'picochat\[hf\]'") as caught:
        import_rows(request(tmp_path, tmp_path / "out"))
    assert caught.value.code is Code.MISSING_DEPENDENCY


def test_a_broken_row_says_how_far_the_import_came(tmp_path: Path) -> None:
    good = "".join(json.dumps({"text": text(n)}) + "\n" for n in range(10))
    (tmp_path / "a.jsonl").write_text(good)
    (tmp_path / "b.jsonl").write_text("{broken\n")
    dataset = DatasetRequest(
        dataset="json", data_files=(str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    )
    with pytest.raises(
        ContractError,
        match=r"json \(.*a\.jsonl, .*b\.jsonl\), after row 10: .*; the same command goes on after row 8",
    ):
        import_rows(request(tmp_path, tmp_path / "out", dataset=dataset))


def test_a_dataset_of_the_hub_is_pinned_and_brings_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub

    class Builder:
        repo_id, hash, config_id = "org/name", "c0ffee", "default"

        def as_streaming_dataset(self, split: str) -> Any:
            return datasets.IterableDataset.from_generator(lambda: iter([{"text": split}]))

    class Info:
        card_data = {"license": ["cc0-1.0", "mit"]}

    asked: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, **k: asked.append(k) or Builder())
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, revision: Info())
    opened = hub.open_dataset(DatasetRequest(dataset="org/name", revision="main"))
    assert (opened.revision, opened.license) == ("c0ffee", "cc0-1.0, mit")
    assert asked == [{"revision": "main"}]

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", offline)
    assert hub.open_dataset(DatasetRequest(dataset="org/name")).license is None


def test_the_report_lists_the_first_rows_and_counts_the_rest(
    split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "REPORTED_ROWS", 10)
    monkeypatch.setattr("picochat_trainer.data.imports.outputs.REPORTED_ROWS", 10)
    imported = import_rows(request(split, tmp_path / "out"))
    report = import_report(imported, report_path=tmp_path / "r.json", out_path=tmp_path / "a/corpus.txt")
    assert (report["rows_reported"], report["rows_omitted"]) == (10, 35)
    assert report["rows"][5] == {"row": 5, "reason": "below_min_chars", "num_characters": 5}
    assert (report["rows_seen"], report["rows_written"], report["rows_skipped"]) == (45, 36, 9)
    assert (report["out_path"], report["documents_dir"]) == ("a/corpus.txt", "out")
    assert report["document_files"][4]["path"] == "out/shard-000004.parquet"
    assert report["document_files"][4]["num_documents"] == 4


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "parquet"])
def test_the_one_file_output_holds_every_document(split: Path, tmp_path: Path, suffix: str) -> None:
    imported = import_rows(request(split, tmp_path / "out", max_rows=12))
    path = tmp_path / f"corpus.{suffix}"
    path.write_text("of an import before")
    write_out(imported, path)
    kept = [n for n in range(12) if n % 5]
    if suffix == "txt":
        assert path.read_text() == "\n\n".join(map(text, kept)) + "\n"
    elif suffix == "jsonl":
        found = [json.loads(line) for line in path.read_text().splitlines()]
        assert found == [{"text": text(n), "row": n} for n in kept]
    else:
        assert pq.read_table(path).to_pylist() == [{"text": text(n), "row": n} for n in kept]
