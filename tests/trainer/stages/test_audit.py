"""The audit stage reads from the reports of base, SFT and eval what was trained on and generated."""

import json
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.evidence import AuditEvidence

PASSAGE = " ".join(f"passage{n} of an old book" for n in range(9))


@pytest.fixture
def trained(run_dir: Path, run_stage: Any) -> Path:
    """A run folder whose second document was held out and whose first five SFT rows were too long."""
    text = f"{PASSAGE}\n\nAnother document of the corpus stands here.\n"
    (run_dir / layout.CORPUS).write_text(text)
    ends = [len(PASSAGE), len(text) - 1]
    spans = [
        {"document_id": "d0", "path": "a.txt", "char_start": 0, "char_end": ends[0]},
        {"document_id": "d1", "path": "b.txt", "char_start": ends[0] + 2, "char_end": ends[1]},
    ]
    manifest = {"format": "picochat-corpus", "stats": {"num_documents": 2}, "documents": spans}
    (run_dir / layout.CORPUS_MANIFEST).write_text(json.dumps(manifest))
    run_stage("eval", {"max_new_tokens": 2})
    base = {"subject": "b" * 64, "dataset": {"split_mode": "document"}}
    sft = json.loads((run_dir / layout.SFT_REPORT).read_text()) | {"subject": "a" * 64}
    sft["dataset"]["train_lines"] = list(range(6, 51))
    (run_dir / "base").mkdir(exist_ok=True)
    (run_dir / layout.BASE_REPORT).write_text(json.dumps(base))
    (run_dir / layout.HOLDOUT).write_text(json.dumps({"document_ids": ["d1"]}))
    (run_dir / layout.SFT_REPORT).write_text(json.dumps(sft))
    (run_dir / layout.BASE_SAMPLES).write_text(json.dumps({"text": f"it went {PASSAGE}"}) + "\n")
    return run_dir


def audit_of(run_dir: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run_dir / layout.AUDIT).read_text())
    return report


def test_the_report_is_evidence_about_what_was_trained_and_generated(trained: Path, run_stage: Any) -> None:
    metrics = run_stage("audit")
    report = audit_of(trained)
    evidence = AuditEvidence.model_validate(report)
    assert (evidence.subject, evidence.base_subject) == ("a" * 64, "b" * 64)
    assert (evidence.trained_documents, evidence.trained_rows) == (1, 45)
    assert report["copied_texts"] == ["generated/base_samples:1"]
    assert metrics["copied_rate"] == evidence.copied.pass_rate
    assert "# Audit report" in (trained / layout.AUDIT_MD).read_text()


def test_a_window_split_trains_on_every_document(trained: Path, run_stage: Any) -> None:
    base = json.loads((trained / layout.BASE_REPORT).read_text())
    base["dataset"]["split_mode"] = "window"
    (trained / layout.BASE_REPORT).write_text(json.dumps(base))
    run_stage("audit")
    assert audit_of(trained)["trained_documents"] == 2


@pytest.mark.parametrize("name", [layout.BASE_REPORT, layout.SFT_REPORT, layout.HOLDOUT, layout.EVAL_REPORT])
def test_a_report_that_is_missing_stops_the_stage(trained: Path, run_stage: Any, name: str) -> None:
    (trained / name).unlink()
    with pytest.raises(ContractError, match="again") as caught:
        run_stage("audit")
    assert caught.value.code is Code.FILE_UNREADABLE
