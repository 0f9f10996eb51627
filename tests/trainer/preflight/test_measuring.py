"""Facts about the files of a run folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.preflight_facts import MachineFacts
from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.preflight.measuring import (
    chat_facts,
    corpus_facts,
    eval_facts,
    honesty_facts,
    measure,
    preference_facts,
)

MACHINE = MachineFacts(cpu_count=2, ram_bytes=1 << 34, free_disk_bytes=1 << 36)
MANIFEST: dict[str, Any] = {
    "format": "picochat-corpus",
    "version": 2,
    "shards": [{"path": "corpus/part-00000.parquet", "num_documents": 3}],
    "stats": {
        "num_documents": 3,
        "num_characters": 900,
        "num_bytes": 1_000,
        "num_read": 6,
        "num_exact_removed": 2,
        "num_near_removed": 1,
        "num_other_removed": 0,
        "exact_left": 0.0,
        "near_left": None,
        "duplicate_line_rate": 0.25,
    },
    "readiness": {"status": "caution", "summary": "look at duplicate_lines"},
    "documents": [],
}
CHAT = [
    {"user": "Who are you?", "assistant": "I am a small model, trained here.", "category": "identity"},
    {"user": "who are you", "assistant": "A small model.", "category": "identity"},
    {"user": "2+2?", "assistant": "4", "category": "bench_math_add"},
    {"user": "Pick A or B.", "assistant": "A", "category": "bench_choice"},
    {"user": "Hello", "assistant": "Hello there, how are you?"},
]
EVAL = [
    {"user": "2+3?", "must_include": ["5"], "category": "bench_math_add", "split": "heldout"},
    {"user": "What is my name?", "answerable": False, "category": "refusal", "level": "adversarial"},
    {"user": "Anything goes"},
]


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def write_manifest(folder: Path, **changes: Any) -> CorpusStore:
    (folder / layout.CORPUS_MANIFEST).write_text(json.dumps({**MANIFEST, **changes}))
    return CorpusStore.at(folder)


def honesty(**changes: Any) -> dict[str, Any]:
    def pair(name: str, prompts: int) -> dict[str, Any]:
        return {"pair": name, "measures": {"normalised": {"prompt": prompts, "prompt_answer": 9}}}

    report = {
        "status": "blocked",
        **{f"{name}_sha256": name[0] * 64 for name in ("chat", "eval")},
        "corpus_sha256": "d" * 64,
        "preferences_sha256": "b" * 64,
        "external_sha256": {"arc": "a" * 64},
        "num_eval": 10,
        "exact_prompt_leaks": 1,
        "preference_prompt_leaks": 2,
        "corpus_prompt_hits": 3,
        "near_prompt_leaks": 4,
        "duplicate_eval_prompts": 5,
        "contamination_matrix": {
            "pairs": [
                pair("sft_vs_external", 6),
                pair("preferences_vs_external", 1),
                pair("corpus_vs_external", 8),
            ]
        },
    }
    return {**report, **changes}


def test_the_corpus_is_measured_from_its_manifest_alone(tmp_path: Path) -> None:
    facts = corpus_facts(write_manifest(tmp_path))
    assert facts.sha256 == file_sha256(tmp_path / layout.CORPUS_MANIFEST)
    assert (facts.num_documents, facts.num_bytes, facts.num_read) == (3, 1_000, 6)
    assert (facts.num_exact_removed, facts.num_near_removed) == (2, 1)
    assert (facts.exact_left, facts.near_left, facts.duplicate_line_rate) == (0.0, None, 0.25)
    assert (facts.readiness, facts.has_documents) == ("caution", True)


@pytest.mark.parametrize("changes", [{"stats": {"num_documents": 3}}, {"readiness": None}])
def test_a_manifest_without_statistics_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="run the dataset stage again") as caught:
        corpus_facts(write_manifest(tmp_path, **changes))
    assert caught.value.code is Code.FILE_UNREADABLE


def test_sft_rows_are_counted_by_category_and_skill(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "chat.jsonl", [*CHAT, "no json"])
    facts = chat_facts(path)
    assert (facts.num_rows, facts.num_invalid, facts.num_duplicate_prompts) == (5, 1, 1)
    assert facts.categories == {"identity": 2, "bench_math_add": 1, "bench_choice": 1, "": 1}
    assert facts.skills == {"identity": 2, "math": 1, "choice": 1}
    assert facts.sha256 == file_sha256(path)


def test_answers_of_skills_do_not_count_as_terse(tmp_path: Path) -> None:
    facts = chat_facts(write_rows(tmp_path / "chat.jsonl", CHAT))
    assert facts.mean_answer_words == pytest.approx((7 + 3 + 1 + 1 + 5) / 5)
    assert facts.mean_open_answer_words == pytest.approx(5)  # of the one row without a skill


def test_eval_items_without_rules_are_counted_one_by_one(tmp_path: Path) -> None:
    facts = eval_facts(write_rows(tmp_path / "eval.jsonl", [*EVAL, {"prompt": "misspelt"}]))
    assert (facts.num_items, facts.num_without_rules, facts.num_invalid) == (3, 1, 1)
    assert facts.num_unanswerable == 1
    assert facts.labels == ("adversarial", "heldout")
    assert facts.skills == {"math": 1, "refusal": 1}


def test_preferences_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}] * 2
    facts = preference_facts(write_rows(tmp_path / "preferences.jsonl", rows))
    assert (facts.num_rows, facts.num_duplicate_prompts) == (2, 1)


def test_leaks_of_external_benchmarks_are_those_of_whole_prompts(tmp_path: Path) -> None:
    path = tmp_path / "honesty.json"
    path.write_text(json.dumps(honesty()))
    facts = honesty_facts(path)
    assert facts is not None and facts.sha256 == file_sha256(path)
    assert (facts.exact_prompt_leaks, facts.preference_prompt_leaks, facts.external_leaks) == (1, 2, 7)
    assert (facts.corpus_prompt_hits, facts.external_corpus_hits) == (3, 8)
    assert (facts.preferences_sha256, facts.external_sha256) == ("b" * 64, {"arc": "a" * 64})
    assert (facts.near_prompt_leaks, facts.duplicate_eval_prompts) == (4, 5)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps(honesty(num_eval="ten"))])
def test_an_honesty_report_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "honesty.json"
    path.write_text(text)
    assert honesty_facts(path) is None


def test_files_that_are_not_there_are_facts_too(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    facts = measure(tmp_path.joinpath, MACHINE)
    assert (facts.chat, facts.eval, facts.preferences, facts.honesty) == (None, None, None, None)
    assert facts.external == {} and facts.machine == MACHINE


def test_external_benchmarks_are_counted_by_name(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    path = write_rows(tmp_path / layout.EXTERNAL_DIR / "arc.jsonl", EVAL[:2])
    facts = measure(tmp_path.joinpath, MACHINE)
    assert (facts.external, facts.external_sha256) == ({"arc": 2}, {"arc": file_sha256(path)})
