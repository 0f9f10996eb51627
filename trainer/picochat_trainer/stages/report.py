"""Report: the run on one page. Writes summary.json for programs and summary.md for people. No torch.

It repeats what the other reports measured and measures nothing itself; what is not there is said to be not there.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from picochat_contract import layout
from picochat_contract.configs import ReportConfig
from picochat_contract.evidence import EvalEvidence, FitEvidence
from picochat_contract.gate import GateReport
from pydantic import ValidationError

from picochat_trainer.atomic import file_sha256, write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.scoring.report import score_table
from picochat_trainer.stages.gate import check_table
from picochat_trainer.tokenizer import Tokenizer

SAMPLES: Final = ("base/sample.txt", "sft/sample.txt")
MAX_SAMPLE: Final = 2_000  # characters of a sample in the summary
REPORTS: Final = {"corpus": layout.CORPUS_MANIFEST, **layout.EVIDENCE_PATHS, "gate": layout.GATE_REPORT}


def run(context: StageContext, config: ReportConfig) -> dict[str, float]:
    reports = {name: _read(context.path(path)) for name, path in REPORTS.items()}
    summary = summarise(
        title=config.title or "Run summary",
        reports=reports,
        samples={name: _sample(context.path(name)) for name in SAMPLES},
        tokenizer=_tokenizer(context.path(layout.TOKENIZER)),
        artifacts=_artifacts(context),
    )
    write_json(context.output(layout.SUMMARY), summary)
    write_text(context.output(layout.SUMMARY_MD), summary_markdown(summary, reports))
    return _metrics(summary)


def summarise(
    *,
    title: str,
    reports: Mapping[str, dict[str, Any] | None],
    samples: Mapping[str, str | None],
    tokenizer: dict[str, Any] | None,
    artifacts: dict[str, str],
) -> dict[str, Any]:
    """Content of summary.json."""
    base, sft, gate = reports["base"] or {}, reports["sft"] or {}, reports["gate"] or {}
    return {
        "title": title,
        "verdict": gate.get("verdict"),
        "policy": gate.get("policy"),
        "blocking": [check["id"] for check in gate.get("checks", []) if check["status"] == "block"],
        "settings": {
            name: report["config"] for name, report in reports.items() if report and "config" in report
        },
        "artifacts": artifacts,
        "corpus": _picked(
            reports["corpus"], "text_sha256", "stats", "licenses", "dropped_counts", "readiness"
        ),
        "honesty": _without(reports["honesty"], "findings"),
        "preflight": _picked(reports["preflight"], "status", "summary", "budget"),
        "audit": _without(reports["audit"], "findings"),
        "tokenizer": tokenizer,
        "base": {
            **_picked(
                base,
                "val_bpb",
                "val_bpb_stderr",
                "unigram_bpb",
                "val_tokens",
                "num_parameters",
                "tokens_seen",
                "stop_reason",
            ),
            "final_losses": _last_losses(base),
            "loss_diagnostics": base.get("loss_diagnostics"),
            "memorization": base.get("memorization"),
        },
        "sft": {
            **_picked(sft, "num_train_rows", "num_val_rows", "stop_reason"),
            "final_losses": _last_losses(sft),
            "loss_diagnostics": sft.get("loss_diagnostics"),
        },
        "sft_fit": _picked(reports["sft_fit"], "overall", "groups"),
        "sft_fit_heldout": _picked(reports["sft_fit_heldout"], "overall", "groups"),
        "eval": _without(reports["eval"], "examples", "config"),
        "samples": dict(samples),
        "gate": reports["gate"],
    }


def summary_markdown(summary: Mapping[str, Any], reports: Mapping[str, dict[str, Any] | None]) -> str:
    """Content of summary.md."""
    lines = [f"# {summary['title']}", "", *_verdict(summary), "", "## Numbers", "", *_numbers(summary)]
    lines += ["", "## Preflight and honesty", "", *_judgements_of_data(summary)]
    for name, heading in (("base", "Base pretraining"), ("sft", "SFT")):
        lines += ["", f"## {heading}", "", *_training(summary[name])]
    for name, heading in (("sft_fit", "Fit on SFT rows"), ("sft_fit_heldout", "Fit on held-out SFT rows")):
        lines += ["", f"## {heading}", "", *_fit(reports[name])]
    lines += ["", "## Eval", "", *_eval(reports["eval"])]
    lines += ["", "## Gate", "", *_gate(reports["gate"]), "", "## Samples", ""]
    for name, text in summary["samples"].items():
        lines += [f"{name}:", "", *_block(text), ""]
    lines += ["## Settings", "", *_block(json.dumps(summary["settings"], indent=2)), "", "## Artifacts", ""]
    lines += ["| file | sha256 |", "|---|---|"]
    lines += [f"| {path} | `{digest}` |" for path, digest in summary["artifacts"].items()]
    return "\n".join(lines) + "\n"


def _verdict(summary: Mapping[str, Any]) -> list[str]:
    if summary["verdict"] is None:
        return ["No gate was run, so this model has no verdict."]
    text = f"Verdict: **{summary['verdict']}** by policy {summary['policy']}."
    if summary["blocking"]:
        text += f" Blocked by {', '.join(summary['blocking'])}; the gate table says what would fix each."
    return [text]


def _numbers(summary: Mapping[str, Any]) -> list[str]:
    base, sft = summary["base"], summary["sft"]
    stats = (summary["corpus"] or {}).get("stats", {})
    rows = {
        "documents in the corpus": stats.get("num_documents"),
        "characters in the corpus": stats.get("num_characters"),
        "tokens in the vocabulary": (summary["tokenizer"] or {}).get("vocab_size"),
        "parameters": base.get("num_parameters"),
        "training tokens seen": base.get("tokens_seen"),
        "base validation, bits per byte": base.get("val_bpb"),
        "its standard error": base.get("val_bpb_stderr"),
        "unigram baseline, bits per byte": base.get("unigram_bpb"),
        "base over unigram": _ratio(base.get("val_bpb"), base.get("unigram_bpb")),
        "SFT rows trained on": sft.get("num_train_rows"),
        "SFT rows held out": sft.get("num_val_rows"),
    }
    return ["| measure | value |", "|---|---:|", *(f"| {name} | {_shown(rows[name])} |" for name in rows)]


def _judgements_of_data(summary: Mapping[str, Any]) -> list[str]:
    """Status and summary of each report about data, one line each."""
    lines = []
    for name in ("preflight", "honesty", "audit"):
        found = summary[name]
        lines.append(
            f"- {name}: **{found['status']}** - {found['summary']}."
            if found and "status" in found
            else f"- {name}: not measured."
        )
    return lines


def _training(part: Mapping[str, Any]) -> list[str]:
    diagnosis, losses = part["loss_diagnostics"], part["final_losses"]
    if not losses:
        return ["No losses were recorded."]
    lines = [
        "| last value of | |",
        "|---|---:|",
        *(f"| {name} | {_shown(losses[name])} |" for name in losses),
    ]
    if diagnosis:
        lines += ["", f"Loss curves: {diagnosis.get('status')} - {diagnosis.get('message')}."]
    return lines


def _fit(report: dict[str, Any] | None) -> list[str]:
    try:
        evidence = FitEvidence.model_validate(report)
    except ValidationError:
        return ["Not measured."]
    return score_table({"all rows": evidence.overall, **evidence.groups})


def _eval(report: dict[str, Any] | None) -> list[str]:
    try:
        evidence = EvalEvidence.model_validate(report)
    except ValidationError:
        return ["Not measured."]
    lines = score_table({"all items": evidence.overall, "non-choice": evidence.non_choice, **evidence.groups})
    if evidence.choice.num_examples:
        lines += [
            "",
            f"Choice accuracy above guessing: {evidence.choice_accuracy_adjusted:.2f} "
            f"(0 is guessing, which gives {evidence.choice_random_baseline:.2f}; 1 is perfect).",
        ]
    assert report is not None  # it has just been validated
    advice = report.get("analysis", {}).get("recommendations", [])
    return [*lines, "", *(f"{r['priority']}. {r['message']}: {r['action']}." for r in advice)]


def _gate(report: dict[str, Any] | None) -> list[str]:
    if report is None:
        return ["No gate was run."]
    try:
        return check_table(GateReport.model_validate(report))
    except ValidationError:
        return ["The gate report cannot be read; run the gate stage again."]


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    found = {
        "val_bpb": summary["base"].get("val_bpb"),
        "unigram_bpb": summary["base"].get("unigram_bpb"),
        "eval_pass_rate": ((summary["eval"] or {}).get("overall") or {}).get("pass_rate"),
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON report, or None where there is none that can be read: the gate has already judged that."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _sample(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:MAX_SAMPLE]
    except OSError:
        return None


def _tokenizer(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    tokenizer = Tokenizer.load(path)
    return {"vocab_size": tokenizer.vocab_size, "sha256": tokenizer.digest}


def _artifacts(context: StageContext) -> dict[str, str]:
    """Digest of every file that this page rests on, by its name in the run folder."""
    names = (layout.TOKENIZER, *REPORTS.values(), *SAMPLES)
    return {name: file_sha256(path) for name in names if (path := context.path(name)).is_file()}


def _picked(report: Mapping[str, Any] | None, *names: str) -> dict[str, Any]:
    return {name: report[name] for name in names if name in report} if report else {}


def _without(report: Mapping[str, Any] | None, *names: str) -> dict[str, Any] | None:
    return {name: value for name, value in report.items() if name not in names} if report else None


def _last_losses(report: Mapping[str, Any]) -> dict[str, Any]:
    """The newest value of each loss: validation is not done at every point."""
    newest: dict[str, Any] = {}
    for point in report.get("losses") or []:
        newest |= {
            name: value
            for name, value in point.items()
            if name.endswith(("loss", "bpb")) and isinstance(value, int | float)
        }
    return newest


def _ratio(value: float | None, baseline: float | None) -> str | None:
    return f"{value / baseline:.0%}" if value is not None and baseline else None


def _shown(value: Any) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _block(text: str | None) -> list[str]:
    """Indented, not fenced: generated text may hold any fence."""
    if text is None:
        return ["None was written."]
    return [f"    {line}" for line in text.splitlines()]
