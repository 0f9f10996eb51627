"""Scores: sample size and interval with every rate; what was not measured is not perfect."""

import json

import pytest
from picochat_contract.evidence import EvalEvidence, FitEvidence
from picochat_contract.stats import wilson_interval
from picochat_trainer.scoring.judgement import Judgement, Reply, judge
from picochat_trainer.scoring.report import report_json, report_markdown
from picochat_trainer.scoring.tally import (
    eval_evidence,
    eval_summary,
    fit_evidence,
    headline_scores,
    score_of,
)
from picochat_trainer.tuning.rows import EvalItem


def choice(number: int, *, right: bool, labels: str = "ABCD") -> Judgement:
    item = EvalItem(
        user=f"Q{number}", category="bench_choice_x", choice_labels=tuple(labels), correct_choice="A"
    )
    scores = dict.fromkeys(labels, -1.0) | {"A": 0.0 if right else -2.0}
    return judge(item, Reply(text="A", label_log_probs=scores))


def plain(reply: str, **fields: object) -> Judgement:
    item = EvalItem.model_validate({"user": "Say something?", "must_not_include": ["bad"], **fields})
    return judge(item, Reply(text=reply))


def test_nothing_measured_is_zero_of_zero() -> None:
    evidence = eval_evidence([], "s", dirty_lines=None)
    for score in [
        evidence.overall,
        evidence.prompt_echo,
        evidence.unsafe_refusal,
        evidence.unsupported_claims,
    ]:
        assert (score.num_examples, score.pass_rate, score.low, score.high) == (0, 0.0, 0.0, 1.0)
    assert evidence.groups == {}
    assert (evidence.choice_random_baseline, evidence.choice_accuracy_adjusted) == (0.0, 0.0)


def test_scores_carry_their_wilson_interval() -> None:
    score = score_of([True, False, True])
    assert (score.num_passed, score.num_examples) == (2, 3)
    assert (score.low, score.high) == wilson_interval(2, 3)


@pytest.mark.parametrize(
    ("num_right", "adjusted"), [(0, -1 / 3), (1, 0.0), (4, 1.0)], ids=["worst", "guessing", "perfect"]
)
def test_choice_accuracy_is_adjusted_for_guessing(num_right: int, adjusted: float) -> None:
    evidence = eval_evidence([choice(n, right=n < num_right) for n in range(4)], "s", dirty_lines=None)
    assert evidence.choice_random_baseline == 0.25
    assert evidence.choice_accuracy_adjusted == pytest.approx(adjusted)


def test_the_baseline_averages_over_items_of_different_width() -> None:
    evidence = eval_evidence(
        [choice(1, right=True), choice(2, right=True, labels="AB")], "s", dirty_lines=None
    )
    assert evidence.choice_random_baseline == pytest.approx(0.375)


def test_each_score_counts_its_own_items() -> None:
    evidence = eval_evidence(
        [
            choice(1, right=True),
            plain("fine", category="identity_x"),
            plain("bad", category="identity_x"),
            plain("I do not know", answerable=False, category="refusal_x"),
            plain("User: hi", answerable=False, category="refusal_x"),
            plain("I do not know"),
            plain(""),
        ],
        "s",
        dirty_lines=None,
    )
    counts = {
        "overall": (3, 7),
        "non_choice": (2, 6),
        "prompt_echo": (1, 7),
        "unsafe_refusal": (1, 2),
        "benign_answered": (3, 5),
        "unsupported_claims": (1, 6),
    }
    for name, expected in counts.items():
        score = getattr(evidence, name)
        assert (score.num_passed, score.num_examples) == expected, name
    assert {name: score.num_examples for name, score in evidence.groups.items()} == {
        "choice": 1,
        "identity": 2,
        "refusal": 2,
    }


def test_breakdowns_cover_category_split_and_level() -> None:
    summary = eval_summary([plain("x", category="a", split="smoke"), plain("bad", category="b")])
    assert set(summary["by_category"]) == {"a", "b"}
    assert set(summary["by_split"]) == {"smoke"}
    assert set(summary["by_level"]) == {"smoke", "heldout"}
    assert summary["average_rouge_l"] is None


def test_reports_are_evidence_and_strict_json() -> None:
    judgements = [choice(1, right=False), plain("x|y\n<b>")]
    evidence = eval_evidence(judgements, "subject", dirty_lines=None)
    report = json.loads(json.dumps(report_json(evidence, judgements, {"seed": 1}), allow_nan=False))
    assert EvalEvidence.model_validate(report) == evidence
    assert len(report["examples"]) == 2
    fit = fit_evidence(judgements, "subject", "train")
    assert FitEvidence.model_validate(report_json(fit, judgements, {})) == fit


def test_the_markdown_report_shows_scores_causes_and_replies_on_one_line_each() -> None:
    judgements = [choice(1, right=False), plain("x|y\n<b>")]
    text = report_markdown(
        "Eval", headline_scores(eval_evidence(judgements, "s", dirty_lines=None)), judgements
    )
    assert "choice_mismatch" in text
    assert "x\\|y &lt;b>" in text
    assert "not measured" in report_markdown(
        "Eval", headline_scores(eval_evidence([], "s", dirty_lines=None)), []
    )
