"""The honesty stage: a report about the run folder's own files."""

import json
from pathlib import Path
from typing import Any

from picochat_contract import layout
from picochat_contract.evidence import HonestyEvidence
from picochat_trainer.atomic import file_sha256

SMALL: dict[str, Any] = {"sft_rows": 40, "eval_rows": 20}


def test_generated_data_is_honest_and_the_report_is_about_these_files(tmp_path: Path, run_stage: Any) -> None:
    run_stage("dataset", SMALL)
    metrics = run_stage("honesty")
    assert metrics["exact_prompt_leaks"] == 0
    report = json.loads((tmp_path / layout.HONESTY).read_text())
    evidence = HonestyEvidence.model_validate(report)
    assert evidence.corpus_sha256 == file_sha256(tmp_path / layout.CORPUS_MANIFEST)
    assert evidence.chat_sha256 == file_sha256(tmp_path / layout.CHAT)
    assert evidence.eval_sha256 == file_sha256(tmp_path / layout.EVAL)
    assert (report["num_sft"], report["num_eval"]) == (40, 20)
    assert "# Honesty report" in (tmp_path / layout.HONESTY_MD).read_text()


def test_a_leak_is_reported_not_raised(tmp_path: Path, run_stage: Any) -> None:
    run_stage("dataset", SMALL)
    prompt = json.loads((tmp_path / layout.EVAL).read_text().splitlines()[3])["user"]
    with (tmp_path / layout.CHAT).open("a") as file:
        file.write(json.dumps({"user": prompt.upper(), "assistant": "Leaked."}) + "\n")
    metrics = run_stage("honesty")
    report = json.loads((tmp_path / layout.HONESTY).read_text())
    assert (metrics["exact_prompt_leaks"], report["status"]) == (1, "blocked")
    (finding,) = [f for f in report["findings"] if f["kind"] == "exact_sft_prompt_leak"]
    assert (finding["target"]["line"], finding["place"]["line"]) == (4, 41)


def test_equal_files_give_equal_reports(tmp_path: Path, run_stage: Any) -> None:
    run_stage("dataset", SMALL)
    run_stage("honesty")
    first = file_sha256(tmp_path / layout.HONESTY)
    run_stage("honesty")
    assert file_sha256(tmp_path / layout.HONESTY) == first
