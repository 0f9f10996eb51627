"""Data against data: each kind of leak trips, names both places, and a clean set trips none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.data_configs import HonestyConfig
from picochat_contract.evidence import HonestyEvidence
from picochat_trainer.honesty.data_files import read_data_files
from picochat_trainer.honesty.markdown import honesty_markdown
from picochat_trainer.honesty.report import data_report
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft

Report = dict[str, Any]
ReportOn = Callable[..., Report]
CLEAN = "Which mountain did the two climbers see first that morning?"
LEAK = "Which gate decides about the release of a finished language model?"
EDITED = "Which gate decides about the launch of a finished language model?"


def pair_of(report: Report, name: str) -> Report:
    return next(pair for pair in report["contamination_matrix"]["pairs"] if pair["pair"] == name)


def places(report: Report, pair: str) -> list[tuple[int | None, str]]:
    """Line of the item, and path or line of the other place, of each finding of a pair."""
    found = [f for f in report["findings"] if f["pair"] == pair]
    return [(f["target"]["line"], f["place"]["path"] or str(f["place"]["line"])) for f in found]


def test_clean_data_is_ready_and_every_pair_was_checked(report_on: ReportOn) -> None:
    report = report_on(items=[CLEAN, LEAK])
    assert (report["status"], report["findings"]) == ("ready", [])
    pairs = {pair["pair"]: pair["risk"] for pair in report["contamination_matrix"]["pairs"]}
    assert pairs == {"corpus_vs_sft": "clean", "corpus_vs_eval": "clean", "sft_vs_eval": "clean"}
    assert not any(report["dirty_eval_lines"].values())


def test_a_prompt_that_is_an_sft_prompt_blocks(report_on: ReportOn) -> None:
    chat = [("Something else entirely, is it?", "Yes."), (LEAK.upper() + "!!", "The release gate.")]
    report = report_on(items=[CLEAN, LEAK], chat=chat)
    assert (report["status"], report["exact_prompt_leaks"]) == ("blocked", 1)
    assert report["dirty_eval_lines"]["normalised"] == [2]
    assert (2, "2") in places(report, "sft_vs_eval")
    assert pair_of(report, "sft_vs_eval")["risk"] == "high"


def test_a_short_prompt_leaks_too(report_on: ReportOn) -> None:
    report = report_on(items=[CLEAN, "2 + 2?"], chat=[("2 +  2", "4"), ("Other?", "No.")])
    assert (report["status"], report["exact_prompt_leaks"]) == ("blocked", 1)


PLACES: dict[str, Report] = {
    "system text": {"system": f"You know this one: {LEAK}", "user": "Hello!", "assistant": "Hello."},
    "longer prompt": {"user": f"Answer shortly. {LEAK} Thanks!", "assistant": "The release gate."},
    "answer": {"user": "What was asked?", "assistant": f"You asked: {LEAK}"},
    "tool": {
        "user": "Go on.",
        "assistant": "Done.",
        "tools": [{"type": "function", "function": {"name": "ask", "description": LEAK}}],
    },
    "earlier answer": {
        "messages": [
            {"role": "user", "content": "Hi."},
            {"role": "assistant", "content": LEAK},
            {"role": "user", "content": "I see."},
            {"role": "assistant", "content": "Good."},
        ]
    },
}


@pytest.mark.parametrize("place", PLACES)
def test_a_whole_prompt_blocks_wherever_it_stands_in_a_row(
    tmp_path: Path, write_data: Any, place: str
) -> None:
    write_data(items=[CLEAN, LEAK])
    with (tmp_path / layout.CHAT).open("a") as file:
        file.write(json.dumps(PLACES[place]) + "\n")
    report = data_report(read_data_files(tmp_path.joinpath), HonestyConfig(), workers=1)
    assert (report["status"], report["exact_prompt_leaks"], report["near_prompt_leaks"]) == ("blocked", 1, 0)
    assert (2, "3") in places(report, "sft_vs_eval")


@pytest.mark.parametrize("field", ["chosen", "rejected"])
def test_a_whole_prompt_in_either_answer_of_a_pair_blocks(report_on: ReportOn, field: str) -> None:
    row = {"prompt": "Say something about gates, please.", "chosen": "They open.", "rejected": "They close."}
    report = report_on(items=[CLEAN, LEAK], preferences=[row | {field: f"You mean: {LEAK}"}])
    assert (report["status"], report["preference_prompt_leaks"]) == ("blocked", 1)


def test_a_leak_in_an_earlier_turn_of_a_conversation_blocks(tmp_path: Path, write_data: Any) -> None:
    write_data(items=[LEAK])
    turns = [("user", LEAK), ("assistant", "The gate."), ("user", "Thanks!"), ("assistant", "Welcome.")]
    row = {"system": "Be kind.", "messages": [{"role": role, "content": text} for role, text in turns]}
    with (tmp_path / layout.CHAT).open("a") as file:
        file.write(json.dumps(row) + "\n")
    report = data_report(read_data_files(tmp_path.joinpath), HonestyConfig(), workers=1)
    assert (report["status"], report["exact_prompt_leaks"]) == ("blocked", 1)


def test_items_that_differ_only_in_their_options_are_not_repeated(tmp_path: Path, write_data: Any) -> None:
    write_data(items=[f"{CLEAN}\nA. one\nB. {n}" for n in ("two", "three")])
    report = data_report(read_data_files(tmp_path.joinpath), HonestyConfig(), workers=1)
    assert report["duplicate_eval_prompts"] == 0


def test_a_prompt_in_the_corpus_is_a_caution_and_names_the_document(report_on: ReportOn) -> None:
    corpus = [
        "Nothing here at all.",
        "He asked: which GATE decides about\nthe release of a finished language model -- twice.",
    ]
    report = report_on(items=[CLEAN, LEAK], corpus=corpus)
    assert (report["status"], report["corpus_prompt_hits"]) == ("caution", 1)
    assert places(report, "corpus_vs_eval") == [(2, "file1.txt")]
    (finding,) = [f for f in report["findings"] if f["pair"] == "corpus_vs_eval"]
    assert "GATE decides" in finding["span_text"]
    assert "file1.txt" in finding["fix"]


def test_an_edited_copy_among_the_sft_prompts_is_a_near_leak(report_on: ReportOn) -> None:
    report = report_on(items=[CLEAN, LEAK], chat=[(EDITED, "The gate."), ("Other things matter?", "No.")])
    assert (report["exact_prompt_leaks"], report["near_prompt_leaks"]) == (0, 1)
    assert report["status"] == "caution"
    assert report["dirty_eval_lines"]["near"] == [2]


def test_a_prompt_among_the_preferences_blocks(report_on: ReportOn) -> None:
    rows = [{"prompt": LEAK, "chosen": "The release gate.", "rejected": "Nobody does."}]
    report = report_on(items=[CLEAN, LEAK], preferences=rows)
    assert (report["status"], report["preference_prompt_leaks"]) == ("blocked", 1)
    assert report["preferences_sha256"]
    assert pair_of(report, "preferences_vs_eval")["risk"] == "high"


def test_an_external_benchmark_in_the_corpus_is_found(report_on: ReportOn) -> None:
    external = {"arc": [{"user": LEAK, "choice_labels": ["A", "B"], "correct_choice": "A"}]}
    report = report_on(items=[CLEAN], corpus=["Plain text first.", f"Q: {LEAK}"], external=external)
    assert pair_of(report, "corpus_vs_external")["num_contaminated"] == 1
    assert report["status"] == "caution"
    assert report["summary"].endswith("; 1 external items are contaminated")
    assert report["num_external"] == 1
    assert set(report["external_sha256"]) == {"arc"}


def test_an_external_benchmark_that_the_eval_repeats_is_found(report_on: ReportOn) -> None:
    external = {"arc": [{"user": LEAK, "choice_labels": ["A", "B"], "correct_choice": "A"}]}
    assert pair_of(report_on(items=[CLEAN, LEAK], external=external), "eval_vs_external")["normalised"] == 1


def test_a_repeated_eval_prompt_is_a_caution(report_on: ReportOn) -> None:
    report = report_on(items=[CLEAN, LEAK, CLEAN.lower()])
    assert (report["status"], report["duplicate_eval_prompts"]) == ("caution", 1)
    (finding,) = [f for f in report["findings"] if f["kind"] == "duplicate_eval_prompt"]
    assert (finding["target"]["line"], finding["place"]["line"]) == (3, 1)


def test_letters_of_other_scripts_leak_too(report_on: ReportOn) -> None:
    prompt = "\u041a\u0430\u043a\u0438\u0435 \u0433\u043e\u0440\u044b \u0441\u0442\u043e\u044f\u0442 \u043d\u0430 \u0432\u043e\u0441\u0442\u043e\u043a\u0435 \u0441\u0442\u0440\u0430\u043d\u044b \u0441\u0435\u0433\u043e\u0434\u043d\u044f"
    report = report_on(items=[prompt], corpus=["x", f"\u00ab{prompt.upper()}\u00bb\u3002"])
    assert report["corpus_prompt_hits"] == 1


def test_the_report_is_evidence_and_strict_json(report_on: ReportOn) -> None:
    report = report_on(items=[CLEAN, LEAK], chat=[(LEAK, "The gate."), ("Other things matter?", "No.")])
    again = json.loads(json.dumps(report, allow_nan=False))
    evidence = HonestyEvidence.model_validate(again)
    assert (evidence.exact_prompt_leaks, evidence.num_eval) == (1, 2)
    assert {pair.pair for pair in evidence.contamination_matrix.pairs} >= {"corpus_vs_eval", "sft_vs_eval"}
    assert (
        next(p for p in evidence.contamination_matrix.pairs if p.pair == "sft_vs_eval").num_contaminated == 1
    )


def test_every_measure_is_reported_with_its_source(report_on: ReportOn) -> None:
    measures = report_on(items=[CLEAN])["measures"]
    assert {"ngram_any_13", "palm70_8", "tulu50_8", "longest_match_8", "near"} <= set(measures)
    assert all(measure["source"] and measure["description"] for measure in measures.values())


def test_more_findings_than_are_listed_are_counted(write_data: Any) -> None:
    items = [
        f"Which gate number {n} decides about release number {n * 7} of the model today?" for n in range(30)
    ]
    data = write_data(items=items, chat=[(item, "It does.") for item in items])
    report = data_report(data, HonestyConfig(max_findings=10), workers=1)
    assert report["exact_prompt_leaks"] == 30
    assert len([f for f in report["findings"] if f["pair"] == "sft_vs_eval"]) == 10
    assert report["findings_omitted"] >= 20


def test_generated_release_skills_do_not_leak_into_their_eval(report_on: ReportOn) -> None:
    chat = [(row.user, row.assistant) for row in generate_sft(600, seed=3)]
    report = report_on(items=[item.user for item in generate_eval(150, seed=3)], chat=chat)
    assert (report["exact_prompt_leaks"], report["near_prompt_leaks"]) == (0, 0)
    assert pair_of(report, "sft_vs_eval")["num_contaminated"] == 0


@pytest.mark.parametrize("clean", [True, False])
def test_the_page_says_what_was_found_and_by_which_rule(report_on: ReportOn, clean: bool) -> None:
    chat = [("A | b `c` <d>, is it?", "Yes."), (CLEAN if not clean else "Other things matter?", "No.")]
    page = honesty_markdown("Honesty report", report_on(items=[CLEAN], chat=chat))
    assert "arXiv 2411.15124" in page
    assert ("Nothing was found." in page) is clean
    assert ("**blocked**" in page) is not clean
