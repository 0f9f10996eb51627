"""corpus_manifest.json and corpus_report.md: every field that readers rely on, long lists cut and counted."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from picochat_contract.data_configs import CleaningConfig, FileSource, PydocSource, Source
from picochat_trainer.data.building import second_pass
from picochat_trainer.data.corpus import build_corpus
from picochat_trainer.data.sources import open_sources


def built(out: Path, *sources: Source, **cleaning: Any) -> dict[str, Any]:
    build_corpus(open_sources(sources, artifact_path=Path), sources, CleaningConfig(**cleaning), 0, out, 1)
    manifest: dict[str, Any] = json.loads((out / "corpus_manifest.json").read_text())
    return manifest


def rows_of(path: Path, *texts: str, **options: Any) -> FileSource:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return FileSource(type="file", path=str(path), **options)


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("manual")
    built(out, PydocSource())
    return out


def test_the_manifest_of_the_manual_has_every_field(manual: Path) -> None:
    manifest = json.loads((manual / "corpus_manifest.json").read_text())
    assert (manifest["format"], manifest["version"], manifest["text"]) == ("picochat-corpus", 2, "corpus.txt")
    assert set(manifest["documents"][0]) == {
        *("document_id", "path", "label", "license", "source", "char_start", "char_end", "num_characters"),
        *("num_lines", "quality_score", "quality_flags", "sha256"),
    }
    (shard,) = manifest["shards"]
    assert set(shard) == {"path", "sha256", "size_bytes", "num_documents", "num_characters", "num_bytes"}
    assert manifest["stats"]["num_documents"] == len(manifest["documents"]) == shard["num_documents"] > 70
    assert manifest["licenses"] == {
        "PSF-2.0": {"documents": shard["num_documents"], "characters": shard["num_characters"]}
    }
    assert set(manifest["dropped"][0]) == {"path", "reason", "quality_score", "duplicate_of", "similarity"}
    assert manifest["sources"][0]["documents"] == shard["num_documents"]
    assert {"near_duplicate_document_rate", "duplicate_line_rate", "num_removed"} <= set(manifest["stats"])


def test_the_report_of_the_manual_has_every_section(manual: Path) -> None:
    report = (manual / "corpus_report.md").read_text()
    for section in (
        "Checks",
        "Left out",
        "Cleaning",
        "Licences",
        "Labels",
        "Sources",
        "Quality",
        "Files",
        "Budget",
    ):
        assert f"\n## {section}\n" in report
    assert "| exact_duplicate | 1 | the text of an earlier document | pydoc/" in report
    assert "Documents by quality score" in report


def test_near_duplicates_stand_in_the_report_as_pairs(tmp_path: Path) -> None:
    text = " ".join(f"word{number}" for number in range(100))
    built(tmp_path, rows_of(tmp_path / "a.jsonl", text, f"{text} more"))
    assert "| a.jsonl:2 | doc-000001 | a.jsonl:1 | 0.9" in (tmp_path / "corpus_report.md").read_text()


def test_licences_labels_and_limits_are_told_by_source(tmp_path: Path) -> None:
    first = rows_of(tmp_path / "a.jsonl", "one", "two", label="mine", license="CC0-1.0", max_documents=1)
    manifest = built(tmp_path / "out", first, rows_of(tmp_path / "b.jsonl", "three"))
    assert manifest["labels"] == {
        "": {"documents": 1, "characters": 5},
        "mine": {"documents": 1, "characters": 3},
    }
    assert list(manifest["licenses"]) == ["", "CC0-1.0"]
    assert [source["limit_reached"] for source in manifest["sources"]] == [True, False]
    assert manifest["sources"][0]["path"] == "a.jsonl"


def test_what_cleaning_counted_is_told(tmp_path: Path) -> None:
    manifest = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", "a\x00\na\nb a@example.org"), pii="mask")
    counts = {name: num for name, num in manifest["cleaning"]["counts"].items() if num}
    assert counts == {"num_control": 1, "num_repeated_lines": 1, "num_email": 1}
    assert manifest["cleaning"]["pii"] == "mask"


def test_what_was_not_looked_for_is_not_told_as_none_found(tmp_path: Path) -> None:
    manifest = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", "a\x00 mail a@example.org"))
    assert manifest["cleaning"]["counts"]["num_email"] is None
    assert manifest["cleaning"]["counts"]["num_control"] == 1
    report = (tmp_path / "out/corpus_report.md").read_text()
    assert "| e-mail addresses | not looked for |" in report
    assert "| control characters | 1 |" in report


def test_separators_are_no_empty_lines(tmp_path: Path) -> None:
    manifest = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", "one", "two", "three\n\nfour"))
    assert manifest["stats"]["empty_line_rate"] == pytest.approx(1 / 5)
    assert manifest["stats"]["num_lines"] == (tmp_path / "out/corpus.txt").read_text().count("\n") == 7


def test_a_compressed_pdf_is_told_as_a_pdf(tmp_path: Path) -> None:
    document = FPDF()
    document.set_font("helvetica", size=12)
    document.add_page()
    document.multi_cell(0, text="A page of text.")
    (tmp_path / "a.pdf.gz").write_bytes(gzip.compress(bytes(document.output())))
    manifest = built(tmp_path / "out", FileSource(type="file", path=str(tmp_path / "a.pdf.gz")))
    assert manifest["files"][0]["reason"] == "included_pdf"


def test_long_lists_are_cut_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_pass, "MAX_RECORDS", 2)
    texts = [f"text number {number}" for number in range(5)]
    manifest = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", *texts, *texts))
    assert (len(manifest["documents"]), manifest["documents_omitted"]) == (2, 3)
    assert (len(manifest["dropped"]), manifest["dropped_omitted"]) == (2, 3)
    assert manifest["dropped_counts"] == {"exact_duplicate": 5}


def test_pipes_and_line_ends_in_names_do_not_break_tables(tmp_path: Path) -> None:
    built(tmp_path / "out", rows_of(tmp_path / "a|b.jsonl", "text"))
    assert "| a\\|b.jsonl | 1 |" in (tmp_path / "out/corpus_report.md").read_text()
