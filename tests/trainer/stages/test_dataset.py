"""The dataset stage: generated and own rows, uploads, and every output under its name."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import HonestyEvidence
from picochat_trainer.atomic import file_sha256

SMALL: dict[str, Any] = {"sft_rows": 40, "eval_rows": 20}


def test_the_default_makes_a_corpus_rows_and_an_honest_report(tmp_path: Path, run_stage: Any) -> None:
    metrics = run_stage("dataset", SMALL)
    assert (metrics["num_sft"], metrics["num_eval"], metrics["exact_prompt_leaks"]) == (40, 20, 0)
    evidence = HonestyEvidence.model_validate_json((tmp_path / layout.HONESTY).read_text())
    assert evidence.corpus_sha256 == file_sha256(tmp_path / layout.CORPUS)
    assert evidence.chat_sha256 == file_sha256(tmp_path / layout.CHAT)
    assert evidence.eval_sha256 == file_sha256(tmp_path / layout.EVAL)


def test_equal_configs_give_equal_files(tmp_path: Path, run_stage: Any) -> None:
    names = [layout.CORPUS, layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL, layout.HONESTY]
    run_stage("dataset", SMALL)
    first = {name: file_sha256(tmp_path / name) for name in names}
    run_stage("dataset", SMALL)
    assert {name: file_sha256(tmp_path / name) for name in names} == first


def test_uploaded_files_are_read_from_the_sources_folder(tmp_path: Path, run_stage: Any) -> None:
    contents = {
        "text.txt": b"Some uploaded text.\n",
        "chat.jsonl": b'{"user": "Hi", "assistant": "Hello"}\r\n\n{"user": "Yo", "assistant": "Hello"}\n',
        "eval.jsonl": b'{"user": "hi!", "must_include": ["hello"]}\n',
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
    }
    metrics = run_stage("dataset", config, paths)
    assert (metrics["num_sft"], metrics["num_eval"], metrics["exact_prompt_leaks"]) == (2, 1, 1)
    assert (tmp_path / layout.CORPUS).read_text() == "Some uploaded text.\n"
    finding = json.loads((tmp_path / layout.HONESTY).read_text())["findings"][0]
    assert (finding["eval_line"], finding["other_line"]) == (1, 1)


@pytest.mark.parametrize("kind", ["chat", "eval"])
def test_a_bad_row_of_an_own_file_is_named_by_file_and_line(
    tmp_path: Path, run_stage: Any, kind: str
) -> None:
    own = tmp_path / "mine.jsonl"
    own.write_text('{"user": "x", "assistant": "y", "must_include": ["z"]}\n{"user": 1}\n')
    if kind == "eval":
        own.write_text('{"user": "x", "must_include": ["z"]}\n{"user": 1}\n')
    with pytest.raises(ContractError, match=r"mine\.jsonl, line 2: ") as caught:
        run_stage("dataset", {**SMALL, kind: {"type": "file", "path": str(own)}})
    assert caught.value.code is Code.BAD_ROW


def test_a_folder_as_chat_file_is_refused(tmp_path: Path, run_stage: Any) -> None:
    with pytest.raises(ContractError, match="is a folder; expected a JSONL file"):
        run_stage("dataset", {**SMALL, "chat": {"type": "file", "path": str(tmp_path)}})
