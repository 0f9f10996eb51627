"""The eval stage: evidence about the checkpoint, choices by log-probability, corpus support on demand."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import EvalEvidence
from picochat_trainer.atomic import file_sha256
from picochat_trainer.inference.engine import Engine
from picochat_trainer.tokenizer import Tokenizer

CONFIG = {"max_new_tokens": 4}


def report_of(run_dir: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run_dir / layout.EVAL_REPORT).read_text())
    return report


def test_the_report_is_evidence_about_the_checkpoint(run_dir: Path, run_stage: Any) -> None:
    metrics = run_stage("eval", CONFIG)
    evidence = EvalEvidence.model_validate(report_of(run_dir))
    assert evidence.subject == file_sha256(run_dir / layout.SFT_CHECKPOINT / layout.WEIGHTS)
    assert evidence.overall.num_examples == 20
    assert metrics["eval_pass_rate"] == evidence.overall.pass_rate
    assert (run_dir / "eval/report.md").read_text().startswith("# Eval")


def test_equal_settings_give_equal_reports(run_dir: Path, run_stage: Any) -> None:
    run_stage("eval", CONFIG)
    first = report_of(run_dir)
    run_stage("eval", CONFIG)
    assert report_of(run_dir) == first


def test_choice_is_the_mean_log_probability_of_each_label(run_dir: Path, run_stage: Any) -> None:
    item = {"user": "Which?", "choice_labels": ["A", "Beta"], "correct_choice": "A"}
    (run_dir / layout.EVAL).write_text(json.dumps(item) + "\n")
    run_stage("eval", CONFIG)
    shown = report_of(run_dir)["examples"][0]["choice_log_probs"]
    tokenizer = Tokenizer.load(run_dir / layout.TOKENIZER)
    engine = Engine.load(run_dir / layout.SFT_CHECKPOINT, run_dir / layout.TOKENIZER)
    prompt, _ = tokenizer.encode_chat([{"role": "user", "content": "Which?"}], True)
    for label in ("A", "Beta"):
        ids = tokenizer.encode(label)
        assert shown[label] == pytest.approx(engine.score(prompt, [ids])[0] / len(ids), abs=1e-5)


def test_a_prompt_longer_than_the_context_fails_and_says_why(run_dir: Path, run_stage: Any) -> None:
    item = {"user": "x" * 400, "must_not_include": ["never said"]}
    (run_dir / layout.EVAL).write_text(json.dumps(item) + "\n")
    run_stage("eval", CONFIG)
    assert "prompt_too_long" in report_of(run_dir)["examples"][0]["failures"]


def test_an_item_without_rules_stops_the_stage(run_dir: Path, run_stage: Any) -> None:
    (run_dir / layout.EVAL).write_text('{"user": "x"}\n')
    with pytest.raises(ContractError, match=r"line 1: .*no rule") as caught:
        run_stage("eval", CONFIG)
    assert caught.value.code is Code.BAD_ROW


def test_corpus_support_needs_a_corpus(run_dir: Path, run_stage: Any) -> None:
    (run_dir / layout.EVAL).write_text('{"user": "x", "require_corpus_support": true}\n')
    run_stage("eval", CONFIG)
    support = report_of(run_dir)["examples"][0]["corpus_support"]
    assert support is None or 0 <= support <= 1
    (run_dir / layout.CORPUS).unlink()
    with pytest.raises(ContractError) as caught:
        run_stage("eval", CONFIG)
    assert caught.value.code is Code.CORPUS_MISSING
