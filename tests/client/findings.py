"""Datasets, preflight reports and honesty reports, for the server in memory."""

from collections.abc import Mapping
from datetime import UTC, datetime

from picochat_contract.api_data import DatasetFileOut, DatasetIn, DatasetOut, HonestyOut, PreflightOut
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightReport, PreflightStatus

START = datetime(2026, 1, 1, tzinfo=UTC)


def dataset_out(body: DatasetIn, sizes: Mapping[str, int], num_versions: int) -> DatasetOut:
    files = [
        DatasetFileOut.model_validate({**file.model_dump(), "size_bytes": sizes[file.digest]})
        for file in body.files
    ]
    return DatasetOut(
        id=f"ds_{body.name}_{num_versions + 1}",
        name=body.name,
        version=num_versions + 1,
        digest=body.digest,
        kind=body.kind,
        description=body.description,
        license=body.license,
        num_files=len(files),
        size_bytes=sum(file.size_bytes for file in files),
        created_at=START,
        created_by="key_1",
        files=files,
        left_out=body.left_out,
    )


def preflight_out(run: str, *, is_leaky: bool) -> PreflightOut:
    leaks = PreflightCheck(
        id="honesty",
        status=CheckStatus.BLOCK if is_leaky else CheckStatus.PASS,
        measured=3.0 if is_leaky else 0.0,
        warn=None,
        block="> 0",
        profile="all",
        message="3 eval prompts among SFT rows" if is_leaky else "0 eval prompts among SFT rows",
        fix="remove the leaked rows" if is_leaky else "",
    )
    size = leaks.model_copy(
        update={
            "id": "corpus_size",
            "status": CheckStatus.WARN,
            "message": "a small corpus",
            "fix": "add text",
        }
    )
    status = PreflightStatus.BLOCKED if is_leaky else PreflightStatus.WARN
    report = PreflightReport(status=status, summary="", budget={}, checks=(leaks, size))
    return PreflightOut(run=run, report=report, decided_at=START, sha256="0" * 64, advice_status=status)


def honesty_out(run: str, *, is_leaky: bool) -> HonestyOut:
    finding = {
        "pair": "sft_vs_eval",
        "measure": "normalised",
        "target": {"id": "eval:7", "path": None, "line": 7},
        "place": {"id": "sft:31", "path": None, "line": 31},
        "span_text": "what is \x1b[31mthe capital",
        "fix": "remove sft:31",
    }
    pairs = [
        {
            "pair": "sft_vs_eval",
            "risk": "high" if is_leaky else "clean",
            "num_targets": 60,
            "num_contaminated": 3,
        },
        {
            "pair": "corpus_vs_external",
            "risk": "not_checked",
            "reason": "no external benchmark",
            "num_targets": 0,
            "num_contaminated": 0,
        },
    ]
    report = {
        "status": "blocked" if is_leaky else "ready",
        "summary": "of 60 eval prompts 3 are SFT prompts" if is_leaky else "none of 60 eval items",
        "contamination_matrix": {"pairs": pairs},
        "findings": [finding] if is_leaky else [],
        "findings_omitted": 2 if is_leaky else 0,
    }
    return HonestyOut(run=run, sha256="0" * 64, report=report, audit_sha256=None, audit=None)
