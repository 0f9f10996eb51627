"""Every finding has a fixture that trips it, names both places, and a clean set trips none."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import HonestyEvidence
from picochat_trainer.data.honesty import MAX_FINDINGS, honesty_report
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft
from picochat_trainer.tuning.rows import to_jsonl

LONG = "Which gate decides about the release of a model?"

# kind -> (SFT prompts, eval prompts, corpus, line in the eval, line on the other side)
FINDINGS: dict[str, tuple[list[str], list[str], str, int, int]] = {
    "exact_sft_prompt_leak": (["Other?", "WHAT is  it"], ["Fine?", "What is it?"], "text\n", 2, 2),
    "eval_prompt_in_corpus": (
        ["Other?"],
        ["Fine?", LONG],
        "First.\n\nHe asked: which GATE decides about\nthe release of a model -- twice.\n",
        2,
        3,
    ),
    "duplicate_eval_prompt": (["Other?"], ["What is it?", "No", "what is it"], "text\n", 3, 1),
}


def report_on(folder: Path, chat: list[str], items: list[str], corpus: str) -> dict[str, Any]:
    (folder / "chat.jsonl").write_text(
        "".join(json.dumps({"user": user, "assistant": "a"}) + "\n" for user in chat)
    )
    (folder / "eval.jsonl").write_text(
        "".join(json.dumps({"user": user, "must_include": ["x"]}) + "\n" for user in items)
    )
    (folder / "corpus.txt").write_text(corpus)
    return honesty_report(
        corpus=folder / "corpus.txt", chat=folder / "chat.jsonl", eval=folder / "eval.jsonl"
    )


@pytest.mark.parametrize("kind", FINDINGS)
def test_each_kind_of_finding_trips_and_names_both_lines(tmp_path: Path, kind: str) -> None:
    chat, items, corpus, eval_line, other_line = FINDINGS[kind]
    report = report_on(tmp_path, chat, items, corpus)
    assert [(f["kind"], f["eval_line"], f["other_line"]) for f in report["findings"]] == [
        (kind, eval_line, other_line)
    ]
    assert report["status"] == ("blocked" if kind == "exact_sft_prompt_leak" else "caution")


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("exact_sft_prompt_leak", "exact_prompt_leaks"),
        ("eval_prompt_in_corpus", "corpus_prompt_hits"),
        ("duplicate_eval_prompt", "duplicate_eval_prompts"),
    ],
)
def test_each_kind_is_counted_in_the_evidence(tmp_path: Path, kind: str, count: str) -> None:
    chat, items, corpus, _, _ = FINDINGS[kind]
    evidence = HonestyEvidence.model_validate(report_on(tmp_path, chat, items, corpus))
    counts = {
        "exact_prompt_leaks": evidence.exact_prompt_leaks,
        "corpus_prompt_hits": evidence.corpus_prompt_hits,
        "duplicate_eval_prompts": evidence.duplicate_eval_prompts,
    }
    assert counts == {name: int(name == count) for name in counts}


def test_clean_data_is_ready(tmp_path: Path) -> None:
    report = report_on(tmp_path, ["Other?"], [LONG, "Short?"], "Unrelated text.\nShort?\n")
    assert (report["status"], report["findings"]) == ("ready", [])
    assert report["num_eval_checked_in_corpus"] == 1


def test_different_sums_are_no_leak(tmp_path: Path) -> None:
    assert report_on(tmp_path, ["12 + 3"], ["12 - 3"], "text\n")["status"] == "ready"


@pytest.mark.parametrize(
    "prompt",
    [
        "\u041a\u0430\u043a \u043d\u0430\u0437\u044b\u0432\u0430\u0435\u0442\u0441\u044f \u0441\u0442\u043e\u043b\u0438\u0446\u0430 \u0441\u0442\u0440\u0430\u043d\u044b?",
        "\u65e5\u672c\u306e\u9996\u90fd\u306f\u3069\u3053\u306b\u3042\u308a\u307e\u3059\u304b",
    ],
)
def test_non_latin_prompts_are_compared_too(tmp_path: Path, prompt: str) -> None:
    report = report_on(tmp_path, [prompt.upper()], [prompt], f"text{chr(0x3002)}{prompt}{chr(0x3002)}\n")
    assert (report["exact_prompt_leaks"], report["corpus_prompt_hits"]) == (1, 1)


def test_a_long_list_of_findings_is_cut_but_counted(tmp_path: Path) -> None:
    prompts = [f"question {n}" for n in range(MAX_FINDINGS + 5)]
    report = report_on(tmp_path, prompts, prompts, "text\n")
    assert report["exact_prompt_leaks"] == MAX_FINDINGS + 5
    assert (len(report["findings"]), report["findings_omitted"]) == (MAX_FINDINGS, 5)


def test_generated_rows_are_honest(tmp_path: Path) -> None:
    (tmp_path / "chat.jsonl").write_text(to_jsonl(generate_sft(300, seed=5)))
    (tmp_path / "eval.jsonl").write_text(to_jsonl(generate_eval(100, seed=5)))
    (tmp_path / "corpus.txt").write_text("Some text.\n")
    report = honesty_report(
        corpus=tmp_path / "corpus.txt", chat=tmp_path / "chat.jsonl", eval=tmp_path / "eval.jsonl"
    )
    assert report["status"] == "ready"


@pytest.mark.parametrize(
    ("content", "code"), [(None, Code.CORPUS_MISSING), (b"ok\n\xff\n", Code.FILE_UNREADABLE)]
)
def test_a_corpus_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | None, code: Code) -> None:
    report_on(tmp_path, ["a"], ["b"], "text\n")
    (tmp_path / "corpus.txt").unlink()
    if content is not None:
        (tmp_path / "corpus.txt").write_bytes(content)
    with pytest.raises(ContractError) as caught:
        honesty_report(
            corpus=tmp_path / "corpus.txt", chat=tmp_path / "chat.jsonl", eval=tmp_path / "eval.jsonl"
        )
    assert caught.value.code is code
