"""Gate: the contract's `decide()` on this run folder's evidence. Advice: the server decides again. No torch.

Writes gate/gate_report.json and gate/report.md. A blocked verdict is a result, not a failure of the stage.
"""

import json
from pathlib import Path

from picochat_contract import layout
from picochat_contract.configs import GateConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.gate import Check, CheckStatus, DataDigests, EvidenceFile, GateReport, Verdict, decide
from picochat_contract.policies import policy_named

from picochat_trainer.atomic import file_sha256, write_text
from picochat_trainer.context import StageContext

MISSING = "0" * 64  # stands for a data file that is not there; no report can be about it


def run(context: StageContext, config: GateConfig) -> dict[str, float]:
    report = decide(
        policy_named(config.profile),
        read_evidence(context),
        subject=_subject(context),
        data=_data_digests(context),
    )
    write_text(context.output(layout.GATE_REPORT), report.model_dump_json(indent=2) + "\n")
    write_text(context.output("gate/report.md"), gate_markdown(report))
    blocking = ", ".join(check.id for check in report.blocking)
    level = "info" if report.verdict is Verdict.APPROVED else "warning"
    context.events.log(level, f"verdict {report.verdict}" + (f": {blocking}" if blocking else ""))
    return {
        "num_checks": len(report.checks),
        "num_blocking": len(report.blocking),
        "num_warnings": len(report.warnings),
    }


def read_evidence(context: StageContext) -> dict[str, EvidenceFile]:
    """The reports that are there; one that is no JSON is given as None, which the gate refuses."""
    files: dict[str, EvidenceFile] = {}
    for name, path in layout.EVIDENCE_PATHS.items():
        file = context.path(path)
        if file.is_file():
            files[name] = EvidenceFile(path=path, sha256=file_sha256(file), data=_json(file))
    return files


def gate_markdown(report: GateReport) -> str:
    """Content of gate/report.md."""
    lines = [
        "# Release gate",
        "",
        f"Verdict: **{report.verdict}** by policy {report.policy} version {report.policy_version}.",
        "",
        f"Checkpoint: `{report.subject}`",
        "",
        *check_table(report),
        "",
    ]
    return "\n".join(lines)


def check_table(report: GateReport) -> list[str]:
    """Markdown rows of all checks, those that block first."""
    order = {CheckStatus.BLOCK: 0, CheckStatus.WARN: 1, CheckStatus.PASS: 2}
    checks = sorted(report.checks, key=lambda check: order[check.status])
    return [
        "| check | status | measured | threshold | what | what would fix it |",
        "|---|---|---:|---:|---|---|",
        *(_row(check) for check in checks),
    ]


def _row(check: Check) -> str:
    measured = "" if check.measured is None else f"{check.measured:.3g}"
    if check.interval is not None:
        measured += f" ({check.interval[0]:.2f} - {check.interval[1]:.2f})"
    threshold = check.comparison if check.threshold is None else f"{check.comparison} {check.threshold:g}"
    return f"| {check.id} | {check.status} | {measured} | {threshold} | {check.message} | {check.fix or 'nothing'} |"


def _subject(context: StageContext) -> str:
    weights = context.path(layout.SFT_CHECKPOINT) / layout.WEIGHTS
    if not weights.is_file():
        raise ContractError(
            Code.CHECKPOINT_CORRUPT,
            f"no weights at {weights}: a gate judges a checkpoint; run the sft stage first",
            param=layout.SFT_CHECKPOINT,
        )
    return file_sha256(weights)


def _data_digests(context: StageContext) -> DataDigests:
    corpus, chat, items = (
        file_sha256(path) if (path := context.path(name)).is_file() else MISSING
        for name in (layout.CORPUS_MANIFEST, layout.CHAT, layout.EVAL)
    )
    return DataDigests(corpus=corpus, chat=chat, eval=items)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
