"""Scores without contaminated items: only of this eval file, and never clean by silence."""

import json
from pathlib import Path

import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.scoring.clean import all_dirty, clean_subsets, read_dirty_lines
from picochat_trainer.scoring.judgement import Judgement, Reply, judge
from picochat_trainer.scoring.tally import eval_evidence
from picochat_trainer.tuning.rows import EvalItem

SHA = "a" * 64


def judgements() -> list[Judgement]:
    """Four items: the first two pass."""
    replies = ["fine", "fine", "bad", "bad"]
    return [
        judge(
            EvalItem.model_validate({"line": line, "user": f"Question {line}?", "must_not_include": ["bad"]}),
            Reply(text=reply),
        )
        for line, reply in enumerate(replies, start=1)
    ]


def report(tmp_path: Path, dirty: dict[str, list[int]]) -> Path:
    path = tmp_path / "honesty_report.json"
    path.write_text(json.dumps({"eval_sha256": SHA, "dirty_eval_lines": dirty}))
    return path


def test_a_score_that_rests_on_leaked_items_falls(tmp_path: Path) -> None:
    dirty = read_dirty_lines(report(tmp_path, {"normalised": [1], "palm70_8": [1, 2]}), SHA)
    evidence = eval_evidence(judgements(), "s", dirty_lines=all_dirty(dirty))
    assert (evidence.overall.pass_rate, evidence.clean.pass_rate, evidence.clean.num_examples) == (
        0.5,
        0.0,
        2,
    )
    subsets = clean_subsets(judgements(), dirty)
    assert subsets["normalised"]["num_dirty"] == 1
    assert subsets["normalised"]["estimated_performance_gain"] == pytest.approx(0.5 - 1 / 3)
    assert subsets["palm70_8"]["dirty"]["pass_rate"] == 1.0


def test_without_a_report_no_item_is_known_to_be_clean(tmp_path: Path) -> None:
    assert read_dirty_lines(tmp_path / "none.json", SHA) is None
    evidence = eval_evidence(judgements(), "s", dirty_lines=all_dirty(None))
    assert evidence.clean.num_examples == 0
    assert clean_subsets(judgements(), None) == {}


def test_a_measure_that_marks_every_item_leaves_nothing_to_gain_from(tmp_path: Path) -> None:
    dirty = read_dirty_lines(report(tmp_path, {"exact": [1, 2, 3, 4]}), SHA)
    assert clean_subsets(judgements(), dirty)["exact"]["estimated_performance_gain"] is None


def test_a_report_about_another_eval_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="run the honesty stage again") as caught:
        read_dirty_lines(report(tmp_path, {}), "b" * 64)
    assert caught.value.code is Code.INPUT_CHANGED


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"eval_sha256": "x", "dirty_eval_lines": 3}'])
def test_a_file_that_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "honesty_report.json"
    path.write_text(text)
    with pytest.raises(ContractError, match="no honesty report") as caught:
        read_dirty_lines(path, SHA)
    assert caught.value.code is Code.FILE_UNREADABLE
