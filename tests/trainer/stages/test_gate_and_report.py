"""Gate and report over a run folder: fail closed, name the fix, invent nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.gate import GateReport, Verdict
from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.honesty import honesty_report
from picochat_trainer.stages.report import summarise, summary_markdown


@pytest.fixture
def judged(run_dir: Path, run_stage: Any) -> Path:
    """A run folder with all evidence: measured where that is quick, made up where it takes training."""
    subject = file_sha256(run_dir / layout.SFT_CHECKPOINT / layout.WEIGHTS)
    run_stage("fit", {"max_new_tokens": 2})
    run_stage("eval", {"max_new_tokens": 2})
    paths = {"corpus": layout.CORPUS, "chat": layout.CHAT, "eval": layout.EVAL}
    honesty = honesty_report(**{name: run_dir / path for name, path in paths.items()})
    base = {
        "subject": "b" * 64,
        "val_bpb": 1.5,
        "unigram_bpb": 3.0,
        "split_mode": "document",
        "val_tokens": 9_000,
        "num_nonfinite_steps": 0,
        "canary_count": 1,
        "canary_hits": 0,
        "num_parameters": 12,
        "tokens_seen": 34,
        "losses": [{"step": 1, "train_loss": 4.0, "val_loss": 4.5}, {"step": 2, "train_loss": 3.5}],
        "loss_diagnostics": {"status": "stable", "message": "moved together"},
        "config": {"max_steps": 2},
    }
    sft = json.loads((run_dir / layout.SFT_REPORT).read_text()) | {
        "subject": subject,
        "base_subject": "b" * 64,
        "split_method": "group",
        "num_train_rows": 50,
        "num_val_rows": 10,
        "num_nonfinite_steps": 0,
    }
    for name, report in ((layout.HONESTY, honesty), (layout.BASE_REPORT, base), (layout.SFT_REPORT, sft)):
        path = run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report))
    (run_dir / "base/sample.txt").write_text("``` a sample")
    return run_dir


def gate_of(run_dir: Path) -> GateReport:
    return GateReport.model_validate_json((run_dir / layout.GATE_REPORT).read_text())


def blocking(run_dir: Path) -> set[str]:
    return {check.id for check in gate_of(run_dir).blocking}


def test_the_gate_reads_every_report_and_names_the_weights(judged: Path, run_stage: Any) -> None:
    run_stage("gate", {"profile": "skill_release"})
    report = gate_of(judged)
    assert report.subject == file_sha256(judged / layout.SFT_CHECKPOINT / layout.WEIGHTS)
    assert {ref.name for ref in report.evidence} == set(layout.EVIDENCE_PATHS)
    assert all(ref.sha256 == file_sha256(judged / ref.path) for ref in report.evidence)
    assert not any(check.id.startswith("evidence_") for check in report.blocking)
    assert report.verdict is Verdict.BLOCKED
    assert "external_eval_missing" in blocking(judged)


@pytest.mark.parametrize("name", [layout.CORPUS, layout.CHAT, layout.EVAL])
def test_a_changed_data_file_blocks(judged: Path, run_stage: Any, name: str) -> None:
    (judged / name).write_text((judged / name).read_text() + "\n")
    run_stage("gate", {"profile": "research"})
    assert "evidence_honesty" in blocking(judged)


def test_a_missing_data_file_blocks(judged: Path, run_stage: Any) -> None:
    (judged / layout.CORPUS).unlink()
    run_stage("gate", {"profile": "research"})
    assert "evidence_honesty" in blocking(judged)


@pytest.mark.parametrize("name", layout.EVIDENCE_PATHS)
def test_missing_and_broken_evidence_block(judged: Path, run_stage: Any, name: str) -> None:
    path = judged / layout.EVIDENCE_PATHS[name]
    for content in ["{", None]:
        if content is None:
            path.unlink()
        else:
            path.write_text(content)
        run_stage("gate", {"profile": "first_release"})
        assert f"evidence_{name}" in blocking(judged)


def test_one_changed_byte_of_the_weights_blocks(judged: Path, run_stage: Any) -> None:
    weights = judged / layout.SFT_CHECKPOINT / layout.WEIGHTS
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    run_stage("gate", {"profile": "research"})
    assert {"evidence_sft", "evidence_eval"} <= blocking(judged)


def test_a_gate_without_weights_is_an_error(judged: Path, run_stage: Any) -> None:
    (judged / layout.SFT_CHECKPOINT / layout.WEIGHTS).unlink()
    with pytest.raises(ContractError) as caught:
        run_stage("gate")
    assert caught.value.code is Code.CHECKPOINT_CORRUPT


def test_the_summary_shows_bpb_beside_unigram_and_a_fix_per_failed_check(
    judged: Path, run_stage: Any
) -> None:
    run_stage("gate", {"profile": "skill_release"})
    metrics = run_stage("report")
    text = (judged / layout.SUMMARY_MD).read_text()
    assert "| base validation, bits per byte | 1.5 |" in text
    assert "| unigram baseline, bits per byte | 3 |" in text
    assert all(check.fix in text for check in gate_of(judged).blocking)
    assert (metrics["val_bpb"], metrics["unigram_bpb"]) == (1.5, 3.0)


def test_the_summary_keeps_settings_losses_samples_and_artifacts(judged: Path, run_stage: Any) -> None:
    run_stage("gate", {"profile": "research"})
    run_stage("report", {"title": "My run"})
    summary = json.loads((judged / layout.SUMMARY).read_text())
    assert summary["title"] == "My run"
    assert summary["settings"]["base"] == {"max_steps": 2}
    assert summary["base"]["final_losses"] == {"train_loss": 3.5, "val_loss": 4.5}
    assert summary["base"]["loss_diagnostics"]["status"] == "stable"
    assert summary["samples"] == {"base/sample.txt": "``` a sample", "sft/sample.txt": None}
    assert summary["artifacts"][layout.EVAL_REPORT] == file_sha256(judged / layout.EVAL_REPORT)
    assert "examples" not in summary["eval"]
    assert summary["verdict"] == gate_of(judged).verdict


def test_what_is_not_there_is_said_to_be_not_there() -> None:
    names = ("corpus", *layout.EVIDENCE_PATHS, "gate")
    nothing: dict[str, dict[str, Any] | None] = dict.fromkeys(names)
    summary = summarise(
        title="Empty", reports=nothing, samples={"base/sample.txt": None}, tokenizer=None, artifacts={}
    )
    text = summary_markdown(summary, nothing)
    assert "has no verdict" in text
    assert text.count("Not measured.") == 3
    assert "| unigram baseline, bits per byte | not measured |" in text
    assert summary["verdict"] is None
