"""The fit stage: which rows it asks, and what it says about which weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import FitEvidence
from picochat_trainer.atomic import file_sha256

CONFIG = {"max_new_tokens": 4}


def examples_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["examples"]
    return found


def test_both_reports_are_about_the_checkpoint(run_dir: Path, run_stage: Any) -> None:
    run_stage("fit", CONFIG)
    for name in (layout.FIT_REPORT, layout.FIT_HELDOUT_REPORT):
        evidence = FitEvidence.model_validate_json((run_dir / name).read_text())
        assert evidence.subject == file_sha256(run_dir / layout.SFT_CHECKPOINT / layout.WEIGHTS)
        assert set(evidence.groups) <= {"identity", "refusal", "choice", "math", "spelling"}


def test_rows_are_those_that_sft_trained_on_and_held_out(run_dir: Path, run_stage: Any) -> None:
    run_stage("fit", CONFIG)
    split = json.loads((run_dir / layout.SFT_REPORT).read_text())["dataset"]
    users = [json.loads(line)["user"] for line in (run_dir / layout.CHAT).read_text().splitlines()]
    for name, lines in (
        (layout.FIT_REPORT, split["train_lines"]),
        (layout.FIT_HELDOUT_REPORT, split["val_lines"]),
    ):
        examples = examples_of(run_dir / name)
        assert [example["line"] for example in examples] == lines
        assert all(example["user"] == users[example["line"] - 1] for example in examples)


def test_blank_lines_do_not_shift_the_rows(run_dir: Path, run_stage: Any) -> None:
    chat = run_dir / layout.CHAT
    chat.write_text("\n\n" + chat.read_text())
    report = {"dataset": {"train_lines": [3, 5], "val_lines": [4]}}
    (run_dir / layout.SFT_REPORT).write_text(json.dumps(report))
    run_stage("fit", CONFIG)
    lines = chat.read_text().split("\n")
    for example in examples_of(run_dir / layout.FIT_REPORT):
        assert example["user"] == json.loads(lines[example["line"] - 1])["user"]


@pytest.mark.parametrize(
    ("report", "code"),
    [
        ({}, Code.FILE_UNREADABLE),
        ({"dataset": {"train_lines": [1]}}, Code.FILE_UNREADABLE),
        ({"dataset": {"train_lines": [1, 61], "val_lines": [2]}}, Code.INPUT_CHANGED),
        ({"dataset": {"train_lines": [1, 2], "val_lines": [2]}}, Code.INPUT_CHANGED),
    ],
)
def test_a_split_that_does_not_fit_the_file_is_refused(
    run_dir: Path, run_stage: Any, report: dict[str, Any], code: Code
) -> None:
    (run_dir / layout.SFT_REPORT).write_text(json.dumps(report))
    with pytest.raises(ContractError) as caught:
        run_stage("fit", CONFIG)
    assert caught.value.code is code


def test_progress_reaches_its_end(run_dir: Path, run_stage: Any) -> None:
    run_stage("fit", CONFIG)
    events = [json.loads(line) for line in (run_dir / "stages/fit/events.jsonl").read_text().splitlines()]
    last = [event["data"] for event in events if event["type"] == "progress"][-1]
    assert last["step"] == last["total_steps"] == 60
