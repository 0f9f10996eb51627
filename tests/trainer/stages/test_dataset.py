"""The dataset stage: generated and own rows, uploads, and every output under its name."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tuning.rows import read_eval

SMALL: dict[str, Any] = {"sft_rows": 40, "eval_rows": 20}
PAIR = {"prompt": "What is blue?", "chosen": "The sky is blue.", "rejected": "Grass is blue."}
ARC = {
    "question": "Which is hot?",
    "choices": {"label": ["A", "B"], "text": ["ice", "fire"]},
    "answerKey": "B",
}


def test_the_default_makes_a_corpus_and_rows_and_judges_nothing(tmp_path: Path, run_stage: Any) -> None:
    metrics = run_stage("dataset", SMALL)
    assert (metrics["num_sft"], metrics["num_eval"], metrics["num_preferences"]) == (40, 20, 0)
    assert 70 < metrics["num_documents"] == CorpusStore.at(tmp_path).num_documents
    assert metrics["num_removed"] == metrics["num_read"] - metrics["num_documents"]
    assert not (tmp_path / layout.HONESTY).exists()


def test_equal_configs_give_equal_files(tmp_path: Path, run_stage: Any) -> None:
    names = [layout.CORPUS, layout.CORPUS_MANIFEST, layout.DROPPED, layout.CHAT, layout.EVAL]
    run_stage("dataset", SMALL)
    first = {name: file_sha256(tmp_path / name) for name in names}
    run_stage("dataset", SMALL)
    assert {name: file_sha256(tmp_path / name) for name in names} == first
    assert not (tmp_path / "corpus.previous").exists()


def test_uploaded_files_are_read_from_the_sources_folder(tmp_path: Path, run_stage: Any) -> None:
    contents = {
        "text.txt": b"Some uploaded text.\n",
        "chat.jsonl": b'{"user": "Hi", "assistant": "Hello"}\r\n\n{"user": "Yo", "assistant": "Hello"}\n',
        "eval.jsonl": b'{"user": "hi!", "must_include": ["hello"]}\n',
        "pairs.jsonl": json.dumps(PAIR).encode(),
        "arc.jsonl": json.dumps(ARC).encode(),
    }
    references = {}
    for name, content in contents.items():
        path = tmp_path / "uploads" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        references[name] = {"type": "artifact", "digest": file_sha256(path), "name": name}
    paths = {
        f"sources/{reference['digest']}": str(tmp_path / "uploads" / name)
        for name, reference in references.items()
    }
    config = {
        "sources": [references["text.txt"]],
        "chat": references["chat.jsonl"],
        "eval": references["eval.jsonl"],
        "preferences": references["pairs.jsonl"],
        "external": {"arc": references["arc.jsonl"]},
    }
    metrics = run_stage("dataset", config, paths)
    assert (metrics["num_sft"], metrics["num_eval"]) == (2, 1)
    assert (metrics["num_preferences"], metrics["num_external"]) == (1, 1)
    assert (tmp_path / layout.CORPUS).read_text() == "Some uploaded text.\n"
    (item,) = read_eval(tmp_path / "external/arc.jsonl")
    assert item.correct_choice == "B"


def test_optional_files_of_an_earlier_config_are_gone(tmp_path: Path, run_stage: Any) -> None:
    own = {"preferences": PAIR, "arc": ARC}
    for name, row in own.items():
        (tmp_path / f"{name}.own.jsonl").write_text(json.dumps(row))
    files = {name: {"type": "file", "path": str(tmp_path / f"{name}.own.jsonl")} for name in own}
    run_stage("dataset", {**SMALL, "preferences": files["preferences"], "external": {"arc": files["arc"]}})
    assert (tmp_path / layout.PREFERENCES).exists()
    run_stage("dataset", SMALL)
    assert not (tmp_path / layout.PREFERENCES).exists()
    assert not (tmp_path / layout.EXTERNAL_DIR).exists()


@pytest.mark.parametrize("kind", ["chat", "eval", "preferences"])
def test_a_bad_row_of_an_own_file_is_named_by_file_and_line(
    tmp_path: Path, run_stage: Any, kind: str
) -> None:
    first = {
        "chat": {"user": "x", "assistant": "y"},
        "eval": {"user": "x", "must_include": ["z"]},
        "preferences": PAIR,
    }
    own = tmp_path / "mine.jsonl"
    own.write_text(json.dumps(first[kind]) + '\n{"user": 1}\n')
    with pytest.raises(ContractError, match=r"mine\.jsonl, line 2: ") as caught:
        run_stage("dataset", {**SMALL, kind: {"type": "file", "path": str(own)}})
    assert caught.value.code is Code.BAD_ROW


@pytest.mark.parametrize("kind", ["chat", "eval", "preferences", "external"])
def test_rows_are_looked_at_before_the_corpus_is_built(tmp_path: Path, run_stage: Any, kind: str) -> None:
    (tmp_path / "mine.jsonl").write_text("{")
    own = {"type": "file", "path": str(tmp_path / "mine.jsonl")}
    sources = [{"type": "file", "path": str(tmp_path / "nowhere.txt")}]
    with pytest.raises(ContractError, match="line 1: not JSON"):
        run_stage("dataset", {**SMALL, "sources": sources, kind: {"arc": own} if kind == "external" else own})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"type": "file", "path": "."}, "is a folder; expected a JSONL file"),
        ({"type": "dataset", "name": "mine"}, "is registered on a server"),
    ],
)
def test_a_chat_file_that_is_none_is_refused(run_stage: Any, reference: dict[str, str], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        run_stage("dataset", {**SMALL, "chat": reference})


def test_without_usable_text_the_stage_fails_and_the_report_stays(tmp_path: Path, run_stage: Any) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(ContractError, match="no usable document: there is no text: empty_text 1") as caught:
        run_stage("dataset", {**SMALL, "sources": [{"type": "file", "path": str(tmp_path / "empty.txt")}]})
    assert caught.value.code is Code.CORPUS_EMPTY
    assert "| empty.txt | 0 |" in (tmp_path / layout.CORPUS_REPORT).read_text()
