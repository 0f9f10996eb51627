"""Whole builds: what stands in the corpus and where, what is left out and why, equal bytes for any number of workers."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from picochat_contract import layout
from picochat_contract.canonical import sha256_hex
from picochat_contract.data_configs import CleaningConfig, FileSource, PydocSource, Source
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data import workers as workers_module
from picochat_trainer.data.building import batches, second_pass
from picochat_trainer.data.cleaning.reasons import Reason
from picochat_trainer.data.corpus import Places, build_corpus, preview_corpus
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.facts import Corpus
from picochat_trainer.data.sources import open_sources
from picochat_trainer.data.workers import Workers

VOCABULARY = (
    "the harbour city people water morning which their about would there could other after first house never again "
    "thought little under night might great through before another because against without children something "
    "nothing between country evening together certain several business question already remember believe society"
)
WORDS = VOCABULARY.split()


def prose(seed: int, num_words: int = 120) -> str:
    rng = random.Random(seed)
    words = rng.choices(WORDS, k=num_words)
    return "\n".join(" ".join(words[start : start + 12]) for start in range(0, num_words, 12))


def folder_of(path: Path, **texts: str) -> FileSource:
    path.mkdir(parents=True)
    for name, text in texts.items():
        (path / f"{name}.txt").write_text(text, newline="")
    return FileSource(type="file", path=str(path))


def rows_of(path: Path, texts: list[str], **options: Any) -> FileSource:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return FileSource(type="file", path=str(path), **options)


def built(
    out: Path, *sources: Source, min_score: float = 0, workers: int | Workers = 1, **cleaning: Any
) -> Corpus:
    files = open_sources(sources, artifact_path=Path)
    return build_corpus(files, sources, CleaningConfig(**cleaning), min_score, out, workers)


def dropped_in(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / layout.DROPPED).to_pylist()
    return rows


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
    }


def test_what_a_weight_draws_out_costs_no_other_source_its_copy(tmp_path: Path) -> None:
    texts = [prose(seed) for seed in range(20)]
    light = rows_of(tmp_path / "light.jsonl", texts, weight=0.5)
    near = rows_of(tmp_path / "near.jsonl", [f"{text} more" for text in texts[:5]], weight=0.1)
    corpus = built(tmp_path / "out", near, light, rows_of(tmp_path / "whole.jsonl", texts))
    assert len(list(CorpusStore.at(tmp_path / "out").documents())) == 20
    assert all(row["duplicate_of"] for row in dropped_in(tmp_path / "out") if row["reason"] != Reason.WEIGHT)
    assert 3 <= corpus.dropped_counts[Reason.WEIGHT] <= 22


def test_documents_are_joined_by_one_blank_line(tmp_path: Path) -> None:
    built(tmp_path / "out", folder_of(tmp_path / "c", a="\n\nfirst\n\n\n", b="  second  \n", c="third"))
    assert (tmp_path / "out/corpus.txt").read_text() == "first\n\n  second\n\nthird\n"


def test_shards_spans_and_text_agree(tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = folder_of(tmp_path / "c", a="caf\u00e9 \u6771\u4eac", b="plain", c="\U0001f600 end")
    corpus = built(out, source)
    store = CorpusStore.at(out)
    store.check_digests()
    text = (out / "corpus.txt").read_text()
    for document, record in zip(store.documents(), corpus.documents, strict=True):
        assert text[record["char_start"] : record["char_end"]] == document.text
        assert sha256_hex(document.text) == record["sha256"]
        assert (document.document_id, len(document.text)) == (record["document_id"], record["num_characters"])
    assert (corpus.stats.num_characters, corpus.stats.num_bytes) == (len(text), len(text.encode()))
    assert (corpus.stats.num_lines, corpus.text_sha256) == (text.count("\n"), sha256_hex(text))


def test_every_reason_is_counted_and_listed(tmp_path: Path) -> None:
    base = prose(1)
    texts = [
        base,
        " \n",
        "tiny",
        "low quality but long enough",
        base.upper().lower(),
        base + "\nand more",
        prose(2) + " call me: jane@example.org",
        "Der Ausschuss traf sich am Dienstag und einigte sich nach langer Beratung auf einen neuen Plan. "
        * 3,
    ]
    first = rows_of(tmp_path / "a.jsonl", texts)
    light = rows_of(tmp_path / "light.jsonl", [prose(seed) for seed in range(20, 30)], weight=0.5)
    capped = rows_of(tmp_path / "capped.jsonl", [prose(seed) for seed in range(40, 45)], max_documents=2)
    mixed = folder_of(tmp_path / "mixed", only=prose(60))
    (tmp_path / "mixed/photo.raw").write_bytes(b"\x00")
    corpus = built(
        tmp_path / "out",
        first,
        light,
        capped,
        mixed,
        min_score=76,
        min_characters=10,
        languages=("en",),
        pii="drop",
    )
    assert set(corpus.dropped_counts) == {*Reason, "unsupported_extension"}
    listed = dropped_in(tmp_path / "out")
    assert sorted(row["reason"] for row in listed) == sorted(
        reason for reason, num in corpus.dropped_counts.items() for _ in range(num)
    )
    by_path = {row["path"]: row for row in listed}
    assert by_path["a.jsonl:5"]["duplicate_of"] == by_path["a.jsonl:6"]["duplicate_of"] == "doc-000001"
    assert 0.8 <= by_path["a.jsonl:6"]["similarity"] < 1
    assert by_path["a.jsonl:7"] | {"sample": None} == by_path["a.jsonl:7"]  # no sample of personal data
    assert by_path["capped.jsonl:3"]["reason"] == Reason.LIMIT
    stats = corpus.stats
    assert stats.num_removed == stats.num_exact_removed + stats.num_near_removed + stats.num_other_removed
    assert stats.num_read == stats.num_documents + stats.num_removed


def test_exact_duplicates_name_the_one_that_stays(tmp_path: Path) -> None:
    corpus = built(tmp_path / "out", folder_of(tmp_path / "c", a="same text", b="other", c="same  text\n"))
    assert [(row["path"], row["reason"], row["duplicate_of"]) for row in corpus.dropped] == [
        ("c/c.txt", "exact_duplicate", "doc-000001")
    ]
    assert corpus.stats.duplicate_document_rate == pytest.approx(1 / 3)
    assert [file.reason for file in corpus.files] == ["included", "included", "exact_duplicate"]
    kept = pq.read_table(tmp_path / "out/corpus/part-00000.parquet").to_pylist()
    assert [row["duplicates"] for row in kept] == [1, 0]


def test_a_copy_of_a_near_duplicate_names_a_document_that_stays(tmp_path: Path) -> None:
    one = prose(1)
    edited = one + " and one more word"
    corpus = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", [one, edited, prose(2), edited]))
    assert [(row["path"], row["duplicate_of"]) for row in corpus.dropped] == [
        ("a.jsonl:2", "doc-000001"),
        ("a.jsonl:4", "doc-000001"),
    ]


def test_duplicates_may_stay_and_are_measured_then(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "c", a="same text", b="same text", c=prose(3))
    corpus = built(tmp_path / "out", source, exact_duplicates=False, near_duplicates=False)
    assert corpus.stats.num_documents == 3
    assert corpus.stats.exact_left == pytest.approx(1 / 3)
    assert (corpus.stats.near_left, corpus.stats.near_duplicate_document_rate) == (None, None)


def test_boilerplate_is_removed_from_all_documents(tmp_path: Path) -> None:
    texts = [f"Menu | Home\n{prose(seed)}\n  All rights reserved" for seed in range(6)]
    built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", texts), boilerplate_documents=6)
    documents = [document.text for document in CorpusStore.at(tmp_path / "out").documents()]
    assert documents == [prose(seed) for seed in range(6)]
    built(tmp_path / "more", rows_of(tmp_path / "a.jsonl", texts), boilerplate_documents=7)
    assert "Menu | Home" in (tmp_path / "more/corpus.txt").read_text()


def test_weights_make_copies_with_ids_of_their_own(tmp_path: Path) -> None:
    twice = rows_of(tmp_path / "a.jsonl", [prose(1), prose(2)], weight=2, label="twice")
    corpus = built(tmp_path / "out", twice, rows_of(tmp_path / "b.jsonl", [prose(3)]))
    documents = list(CorpusStore.at(tmp_path / "out").documents())
    assert [document.text for document in documents] == [prose(n) for n in (1, 1, 2, 2, 3)]
    assert [document.document_id for document in documents] == [f"doc-{n:06d}" for n in range(1, 6)]
    assert (corpus.labels["twice"].documents, corpus.stats.exact_left) == (4, 0)
    assert corpus.stats.duplicate_line_rate == 0  # a copy repeats no line of the sources


def test_limits_count_what_is_kept(tmp_path: Path) -> None:
    texts = [prose(1), prose(1), "", prose(2), prose(3), prose(4)]
    documents = rows_of(tmp_path / "a.jsonl", texts, max_documents=2)
    characters = rows_of(tmp_path / "b.jsonl", [prose(n) for n in range(10, 20)], max_characters=1_500)
    corpus = built(tmp_path / "out", documents, characters)
    kept = [document.path for document in CorpusStore.at(tmp_path / "out").documents()]
    assert kept == ["a.jsonl:1", "a.jsonl:4", "b.jsonl:1", "b.jsonl:2"]
    limits = [row["path"] for row in corpus.dropped if row["reason"] == Reason.LIMIT]
    assert limits == ["a.jsonl:5", "b.jsonl:3"]
    assert corpus.full_sources == {0, 1}


def test_what_lies_behind_a_limit_is_nobodys_business(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "c", a=prose(1), b=prose(2), d=prose(4))
    (tmp_path / "c/c.txt").write_bytes(b"\xff not UTF-8")
    corpus = built(tmp_path / "out", folder.model_copy(update={"max_documents": 2}))
    assert [file.reason for file in corpus.files] == ["included", "included", "limit", "limit"]
    with pytest.raises(ContractError, match=r"c/c\.txt, line 1"):
        built(tmp_path / "other", folder.model_copy(update={"max_documents": 3}))


@pytest.fixture
def tiny_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 4_000)


@pytest.mark.usefixtures("tiny_batches")
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [prose(seed) for seed in range(60)]
    texts += [texts[3], texts[5] + " edited", "", prose(100) + " a@example.org"] * 3
    sources = (
        rows_of(tmp_path / "limited.jsonl", [prose(seed) for seed in range(200, 260)], max_documents=17),
        rows_of(tmp_path / "a.jsonl", texts, weight=1.5, label="a", license="CC0-1.0"),
        PydocSource(max_characters=60_000),
    )
    monkeypatch.setattr(workers_module, "POOL_AFTER_BYTES", 0)
    for workers in (1, 2, 3):
        with Workers(workers, pool_after_bytes=0) as pool:
            built(tmp_path / f"out{workers}", *sources, workers=pool, pii="mask", boilerplate_documents=40)
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2") == contents(tmp_path / "out3")


@pytest.mark.usefixtures("tiny_batches")
def test_a_text_over_the_limit_stays_in_shards_alone(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "a.jsonl", [prose(seed) for seed in range(20)])
    places = Places.below(tmp_path / "out")
    small = Places(**{**vars(places), "text_limit_bytes": 1_000})
    built(tmp_path / "out", source)
    files = open_sources([source], artifact_path=Path)
    corpus = build_corpus(files, [source], CleaningConfig(), 0, small, 1)
    assert not places.text.exists()
    assert (corpus.text, corpus.text_sha256, corpus.documents[5]["char_start"]) == (None, None, None)
    assert len(list(CorpusStore.at(tmp_path / "out").documents())) == 20


def test_equal_input_gives_equal_files_wherever_it_lies(tmp_path: Path) -> None:
    for place in ["here", "there/deep"]:
        source = folder_of(tmp_path / place / "texts", a="one", b="two")
        built(tmp_path / place / "out", source)
    assert contents(tmp_path / "here/out") == contents(tmp_path / "there/deep/out")
    assert str(tmp_path) not in (tmp_path / "here/out/corpus_manifest.json").read_text()


@pytest.mark.parametrize("break_it", ["source", "shard"])
def test_a_failed_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, break_it: str
) -> None:
    source = folder_of(tmp_path / "c", a="fine")
    if break_it == "source":
        (tmp_path / "c/b.txt").write_bytes(b"\xff")
    else:
        fail: Callable[..., None] = lambda *args: (_ for _ in ()).throw(OSError("disk full"))  # noqa: E731
        monkeypatch.setattr("picochat_trainer.data.corpus._write_text", fail)
    with pytest.raises((ContractError, OSError)):
        built(tmp_path / "out", source)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "out" in path.parts] == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failed_build_keeps_the_corpus_that_was_there(tmp_path: Path) -> None:
    built(tmp_path / "out", folder_of(tmp_path / "c", a="fine"))
    before = contents(tmp_path / "out")
    (tmp_path / "c/b.txt").write_bytes(b"\xff")
    with pytest.raises(ContractError):
        built(tmp_path / "out", FileSource(type="file", path=str(tmp_path / "c")))
    assert contents(tmp_path / "out") == before


def test_no_manifest_stands_beside_shards_that_it_does_not_describe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path / "out", folder_of(tmp_path / "c", a="fine"))
    fail: Callable[..., None] = lambda *args: (_ for _ in ()).throw(OSError("disk full"))  # noqa: E731
    monkeypatch.setattr("picochat_trainer.data.corpus.corpus_report", fail)
    with pytest.raises(OSError, match="disk full"):
        built(tmp_path / "out", folder_of(tmp_path / "d", a="other"))
    assert not (tmp_path / "out/corpus_manifest.json").exists()


def test_sums_over_shards_are_those_of_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 1)
    monkeypatch.setattr(second_pass, "SHARD_BYTES", 1)
    texts = ["one two\nsame line", "\u00e9 three\nsame line", "the longest one of all three"]
    corpus = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", texts))
    assert len(corpus.shards) == 3
    stats, text = corpus.stats, (tmp_path / "out/corpus.txt").read_text()
    assert (stats.num_characters, stats.num_bytes) == (len(text), len(text.encode()))
    assert stats.largest_document_share == pytest.approx(28 / (17 + 17 + 28))
    assert stats.non_ascii_rate == pytest.approx(1 / len(text))
    assert stats.duplicate_line_rate == pytest.approx(1 / 5)
    assert corpus.files[0].quality_score == pytest.approx((75 + 67 + 75) / 3, abs=0.05)


def test_a_file_of_many_shards_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 1_000)
    monkeypatch.setattr(second_pass, "SHARD_BYTES", 2_000)
    corpus = built(tmp_path / "out", rows_of(tmp_path / "a.jsonl", [prose(seed) for seed in range(9)]))
    assert len(corpus.shards) > 1
    assert (corpus.stats.num_files, corpus.stats.num_skipped_files) == (1, 0)


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "corpus", mine="a text of my own")
    with pytest.raises(ContractError, match=r"holds mine\.txt, which is not a part of a corpus") as caught:
        built(tmp_path, source)
    assert caught.value.code is Code.EXISTS
    assert (tmp_path / "corpus/mine.txt").exists()


def test_without_text_the_corpus_is_empty_and_says_why(tmp_path: Path) -> None:
    corpus = built(tmp_path / "out", folder_of(tmp_path / "c", a=" \n", b=" "))
    assert corpus.is_empty
    manifest = json.loads((tmp_path / "out/corpus_manifest.json").read_text())
    assert manifest["readiness"]["status"] == "blocked"
    assert (manifest["budget"]["suggested_base_steps"], manifest["budget"]["training_command"]) == (0, "")
    assert "empty_text 2" in (tmp_path / "out/corpus_report.md").read_text()
    assert list(CorpusStore.at(tmp_path / "out").documents()) == []


def test_a_folder_without_files_makes_an_empty_corpus(tmp_path: Path) -> None:
    corpus = built(tmp_path / "out", folder_of(tmp_path / "c"))
    assert (corpus.is_empty, corpus.stats.num_files, corpus.shards) == (True, 0, ())
    assert "no files were found" in (tmp_path / "out/corpus_report.md").read_text()
    assert dropped_in(tmp_path / "out") == []


def test_a_preview_finds_the_same_and_writes_nothing(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "a.jsonl", [prose(1), prose(2), prose(1)])
    files = list(open_sources([source], artifact_path=Path))
    found = preview_corpus(files, [source], CleaningConfig(), 0, 1, num_characters=12)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    assert found.text == prose(1)[:12]
    assert found.corpus.stats == built(tmp_path / "out", source).stats


def test_articles_of_a_wikitext_like_file_come_through_whole(tmp_path: Path) -> None:
    article = " = Valkyria = \n \n The game began development in 2010 , carrying over work . \n \n = = Gameplay = = \n \n It is @-@ like . \n"
    built(tmp_path / "out", folder_of(tmp_path / "c", wiki=article * 2))
    (document,) = CorpusStore.at(tmp_path / "out").documents()
    assert document.text == (article * 2).rstrip()


def test_progress_tells_documents_and_characters(tmp_path: Path) -> None:
    source = rows_of(tmp_path / "a.jsonl", ["one", "three"])
    told: list[tuple[int, int]] = []
    build_corpus(
        open_sources([source], artifact_path=Path),
        [source],
        CleaningConfig(),
        0,
        tmp_path / "out",
        1,
        progress=lambda documents, characters: told.append((documents, characters)),
    )
    assert told == [(2, 8)]
