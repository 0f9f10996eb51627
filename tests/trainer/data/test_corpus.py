"""corpus.txt and its manifest: spans that fit, duplicates removed and listed, equal input gives equal bytes."""

import io
import json
from pathlib import Path

import pytest
from picochat_contract.canonical import sha256_hex
from picochat_contract.data_configs import FileSource, PydocSource
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.corpus import Corpus, build_corpus
from picochat_trainer.data.manifest import corpus_manifest, write_corpus
from picochat_trainer.data.readiness import Status, judge_corpus
from picochat_trainer.data.sources import open_sources


def folder_of(path: Path, **texts: str) -> FileSource:
    path.mkdir(parents=True)
    for name, text in texts.items():
        (path / f"{name}.txt").write_text(text)
    return FileSource(type="file", path=str(path))


def built(source: FileSource | PydocSource, min_score: float = 0) -> tuple[Corpus, str]:
    out = io.StringIO()
    corpus = build_corpus(open_sources([source], artifact_path=Path), min_score=min_score, out=out)
    return corpus, out.getvalue()


def test_documents_are_joined_by_one_blank_line(tmp_path: Path) -> None:
    _, text = built(folder_of(tmp_path / "c", a="\n\nfirst\n\n\n", b="  second  \n", c="third"))
    assert text == "first\n\n  second\n\nthird\n"


def test_spans_cut_the_documents_out_of_the_text(tmp_path: Path) -> None:
    corpus, text = built(folder_of(tmp_path / "c", a="caf\u00e9 \u6771\u4eac", b="plain", c="\U0001f600 end"))
    raw = text.encode()
    for document in corpus.documents:
        cut = text[document.char_start : document.char_end]
        assert sha256_hex(cut) == document.sha256
        assert raw[document.byte_start : document.byte_end].decode() == cut
        assert len(cut) == document.num_characters
    assert (corpus.stats.num_characters, corpus.stats.num_bytes) == (len(text), len(raw))
    assert corpus.stats.num_lines == text.count("\n")
    assert corpus.sha256 == sha256_hex(text)


def test_exact_duplicates_are_removed_and_listed(tmp_path: Path) -> None:
    corpus, text = built(folder_of(tmp_path / "c", a="same text", b="other", c="same text\n"))
    assert text == "same text\n\nother\n"
    assert [(d.path, d.reason, d.duplicate_of) for d in corpus.dropped] == [
        ("c/c.txt", "duplicate", "doc-000001")
    ]
    assert corpus.stats.duplicate_document_rate == pytest.approx(1 / 3)
    assert [file.reason for file in corpus.files] == ["included", "included", "duplicate"]


def test_low_scores_and_empty_files_are_left_out_with_their_reason(tmp_path: Path) -> None:
    good = "\n".join(f"Line {n} is about topic {n * 7}." for n in range(80))
    corpus, text = built(folder_of(tmp_path / "c", a="short", b=good, c=" \n"), min_score=80)
    assert text == good + "\n"
    assert [(d.path, d.reason) for d in corpus.dropped] == [
        ("c/a.txt", "below_min_score"),
        ("c/c.txt", "empty_text"),
    ]


@pytest.mark.parametrize("texts", [{}, {"a": "  \n\n"}])
def test_no_usable_document_is_corpus_empty(tmp_path: Path, texts: dict[str, str]) -> None:
    with pytest.raises(ContractError, match="no usable document") as caught:
        built(folder_of(tmp_path / "c", **texts))
    assert caught.value.code is Code.CORPUS_EMPTY


def test_equal_input_gives_equal_files_wherever_it_lies(tmp_path: Path) -> None:
    for place in ["here", "there/deep"]:
        source = folder_of(tmp_path / place / "texts", a="one", b="two")
        write_corpus(
            open_sources([source], artifact_path=Path),
            [source],
            min_score=0,
            corpus_path=tmp_path / place / "corpus.txt",
            manifest_path=tmp_path / place / "corpus_manifest.json",
            report_path=tmp_path / place / "corpus_report.md",
        )
    for name in ["corpus.txt", "corpus_manifest.json", "corpus_report.md"]:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there/deep" / name).read_bytes()
    assert str(tmp_path) not in (tmp_path / "here/corpus_manifest.json").read_text()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "c", a="fine")
    (tmp_path / "c/b.txt").write_bytes(b"\xff")
    with pytest.raises(ContractError):
        write_corpus(
            open_sources([source], artifact_path=Path),
            [source],
            min_score=0,
            corpus_path=tmp_path / "corpus.txt",
            manifest_path=tmp_path / "m.json",
            report_path=tmp_path / "r.md",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_manifest_of_the_manual_has_every_measured_field() -> None:
    corpus, text = built(PydocSource())
    manifest = json.loads(json.dumps(corpus_manifest(corpus, [PydocSource()])))
    assert manifest["corpus_sha256"] == sha256_hex(text)
    assert set(manifest["documents"][0]) >= {
        *("document_id", "path", "label", "char_start", "char_end", "num_characters", "num_lines"),
        *("quality_score", "quality_flags", "sha256"),
    }
    assert manifest["stats"]["num_documents"] == len(manifest["documents"]) > 70


def test_readiness_is_ready_only_within_every_limit(tmp_path: Path) -> None:
    long = {name: "\n".join(f"{name} line {n} of many" for n in range(40)) for name in "abcd"}
    ready, _ = built(folder_of(tmp_path / "good", **long))
    tiny, _ = built(folder_of(tmp_path / "tiny", a="one line"))
    assert judge_corpus(ready).status is Status.READY
    names = {check.name for check in judge_corpus(tiny).checks if check.status is Status.CAUTION}
    assert {"usable_documents", "corpus_size", "document_mix"} <= names
