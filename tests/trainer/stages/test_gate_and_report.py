"""Gate and report over a run folder: fail closed, name the fix, invent nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.gate import GateReport, Verdict
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName
from picochat_trainer.atomic import file_sha256
from picochat_trainer.scoring.tally import score_of
from picochat_trainer.stages.report import summarise, summary_markdown

NONE_OF_100 = score_of([False] * 100).model_dump(mode="json")
TEXTS = ("A short corpus has one text about rivers.", "And it has another one about bread.")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test of this module leaves its run folder for the others."""
    return tmp_path_factory.mktemp("judged")


@pytest.fixture
def judged(made: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run folder with all evidence: measured where that is quick, made up where it takes training."""
    if any(made.iterdir()):
        shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    else:
        write_evidence(request.getfixturevalue("run_dir"), request.getfixturevalue("run_stage"))
        shutil.copytree(tmp_path, made, dirs_exist_ok=True)
    return tmp_path


def write_evidence(run_dir: Path, run_stage: Any) -> None:
    subject = file_sha256(run_dir / layout.SFT_CHECKPOINT / layout.WEIGHTS)
    own = {name: run_dir / "own" / path for name, path in (("chat", layout.CHAT), ("eval", layout.EVAL))}
    for path in own.values():
        path.parent.mkdir(exist_ok=True)
        (run_dir / path.name).rename(path)
    texts = run_dir / "own" / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    files = {name: {"type": "file", "path": str(path)} for name, path in own.items()}
    dataset = {"sources": [{"type": "file", "path": str(texts)}], **files}
    run_stage("dataset", dataset)
    run_stage("honesty")
    spec = parse_mapping({"scale": "smoke", "dataset": dataset})
    run_stage("preflight", expand(spec)[StageName.PREFLIGHT].model_dump(mode="json"))
    run_stage("fit", {"max_new_tokens": 2})
    run_stage("eval", {"max_new_tokens": 2})
    base = {
        "subject": "b" * 64,
        "val_bpb": 1.5,
        "unigram_bpb": 3.0,
        "split_mode": "document",
        "val_tokens": 9_000,
        "num_nonfinite_steps": 0,
        "canary_count": 1,
        "canary_hits": 0,
        "exposure_bits": 1.0,
        "control_exposure_bits": 1.0,
        "extractable": NONE_OF_100,
        "extractable_heldout": NONE_OF_100,
        "num_parameters": 12,
        "tokens_seen": 34,
        "losses": [{"step": 1, "train_loss": 4.0, "val_loss": 4.5}, {"step": 2, "train_loss": 3.5}],
        "loss_diagnostics": {"status": "stable", "message": "moved together"},
        "config": {"max_steps": 2},
        "dataset": {"split_mode": "document"},
    }
    sft = json.loads((run_dir / layout.SFT_REPORT).read_text()) | {
        "subject": subject,
        "base_subject": "b" * 64,
        "split_method": "group",
        "num_train_rows": 50,
        "num_val_rows": 10,
        "num_nonfinite_steps": 0,
    }
    reports = {layout.BASE_REPORT: base, layout.SFT_REPORT: sft, layout.HOLDOUT: {"document_ids": []}}
    for name, report in reports.items():
        path = run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report))
    (run_dir / "base/sample.txt").write_text("``` a sample")
    run_stage("audit")


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


ABOUT_DATA = {"evidence_honesty", "evidence_preflight", "evidence_audit"}


@pytest.mark.parametrize("name", [layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL])
def test_a_changed_data_file_blocks(judged: Path, run_stage: Any, name: str) -> None:
    (judged / name).write_text((judged / name).read_text() + "\n")
    run_stage("gate", {"profile": "research"})
    assert blocking(judged) >= ABOUT_DATA


def test_a_missing_data_file_blocks(judged: Path, run_stage: Any) -> None:
    (judged / layout.CORPUS_MANIFEST).unlink()
    run_stage("gate", {"profile": "research"})
    assert blocking(judged) >= ABOUT_DATA


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
