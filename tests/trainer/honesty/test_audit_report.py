"""After training: only what was really trained on counts, and generated text is compared with all of it."""

from typing import Any

import pytest
from picochat_contract.data_configs import HonestyConfig
from picochat_contract.evidence import AuditEvidence
from picochat_trainer.honesty.markdown import honesty_markdown
from picochat_trainer.honesty.report import COPIED_WORDS, Trained, audit_report

CONFIG = HonestyConfig()
LEAK = "Which gate decides about the release of a finished language model?"
CLEAN = "Which mountain did the two climbers see first that morning?"
LONG = " ".join(f"word{n} of the old tale" for n in range(8))


def trained(*, held_out: frozenset[str] = frozenset(), lines: frozenset[int] = frozenset({1, 2})) -> Trained:
    return Trained(
        subject="s" * 64,
        base_subject="b" * 64,
        held_out_documents=held_out,
        chat_lines=lines,
        num_documents=2,
    )


def audited(data: Any, generated: dict[str, str] | None = None, **about: Any) -> dict[str, Any]:
    return audit_report(data, trained(**about), generated or {}, CONFIG, workers=1)


def test_a_leak_in_a_held_out_document_was_not_trained_on(write_data: Any) -> None:
    data = write_data(items=[LEAK], corpus=["Nothing to see here, move along please.", f"It said: {LEAK}"])
    assert audited(data)["trained_prompt_hits"] == 1
    report = audited(data, held_out=frozenset({"doc1"}))
    assert (report["trained_prompt_hits"], report["status"]) == (0, "ready")
    assert (report["trained_documents"], report["held_out_documents"]) == (1, 1)


def test_a_leak_in_a_row_that_was_not_used_was_not_trained_on(write_data: Any) -> None:
    data = write_data(items=[LEAK], chat=[("Anything else to say?", "No."), (LEAK, "The gate.")])
    assert (audited(data)["trained_prompt_hits"], audited(data)["status"]) == (1, "blocked")
    assert audited(data, lines=frozenset({1}))["trained_prompt_hits"] == 0


def test_a_short_prompt_that_was_trained_on_counts(write_data: Any) -> None:
    data = write_data(items=["2 + 2?"], chat=[("Anything else to say?", "No."), ("2+2", "4")])
    assert audited(data)["trained_prompt_hits"] == 1
    assert audited(data, lines=frozenset({1}))["trained_prompt_hits"] == 0


def test_a_generated_text_that_gives_the_corpus_back_is_a_copy(write_data: Any) -> None:
    data = write_data(items=[CLEAN], corpus=["Plain words first, nothing more.", LONG])
    own = " ".join(f"novel{n} thing{n}" for n in range(COPIED_WORDS))
    report = audited(
        data, {"base_samples:1": f"and so {LONG}", "base_samples:2": own, "eval_reply:1": "short"}
    )
    assert report["copied"]["num_examples"] == 2  # the short one cannot be judged
    assert report["copied_texts"] == ["generated/base_samples:1"]
    assert report["status"] == "caution"
    pair = next(p for p in report["contamination_matrix"]["pairs"] if p["pair"] == "corpus_vs_generated")
    assert pair["num_contaminated"] == 1


def test_a_span_shorter_than_the_limit_is_no_copy(write_data: Any) -> None:
    span = " ".join(LONG.split()[: COPIED_WORDS - 1])
    own = " ".join(f"novel{n}" for n in range(COPIED_WORDS))
    data = write_data(items=[CLEAN], corpus=["Plain words first, nothing more.", LONG])
    assert audited(data, {"a:1": f"{own} {span} {own}"})["copied"]["num_passed"] == 0


def test_text_copied_from_a_held_out_document_is_no_copy_of_training_text(write_data: Any) -> None:
    data = write_data(items=[CLEAN], corpus=["Plain words first, nothing more.", LONG])
    assert audited(data, {"a:1": LONG}, held_out=frozenset({"doc1"}))["copied"]["num_passed"] == 0


def test_the_report_is_evidence_about_the_checkpoint(write_data: Any) -> None:
    evidence = AuditEvidence.model_validate(audited(write_data(items=[CLEAN]), {"a:1": LONG}))
    assert (evidence.subject, evidence.trained_rows, evidence.num_eval) == ("s" * 64, 2, 1)


@pytest.mark.parametrize("generated", [{}, {"a:1": "   "}, {"a:1": LONG}])
def test_the_page_can_always_be_written(write_data: Any, generated: dict[str, str]) -> None:
    page = honesty_markdown("Audit report", audited(write_data(items=[CLEAN]), generated))
    assert "documents that were trained on" in page
