"""Audit: the eval against what was really trained on, and what the checkpoint generated against all of it. No torch.

What was trained on is what the reports of base and SFT say: documents that were not held out, rows that were used.
Writes honesty/audit_report.json (evidence for the gate) and honesty/audit_report.md.
"""

import json
from pathlib import Path
from typing import Any

from picochat_contract import layout
from picochat_contract.configs import AuditConfig
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.honesty.data_files import DataFiles, read_data_files
from picochat_trainer.honesty.markdown import honesty_markdown
from picochat_trainer.honesty.report import Trained, audit_report


def run(context: StageContext, config: AuditConfig) -> dict[str, float]:
    context.events.progress(0, 2, "steps", "reading what was trained on")
    data = read_data_files(context.path)
    trained = _trained(context, data)
    generated = _generated(context)
    context.events.progress(1, 2, "steps", "comparing it with the eval and with what was generated")
    report = audit_report(data, trained, generated, config, workers=context.num_workers)
    write_json(context.output(layout.AUDIT), report)
    write_text(context.output(layout.AUDIT_MD), honesty_markdown("Audit report", report))
    level = "info" if report["status"] == "ready" else "warning"
    context.events.log(level, f"audit {report['status']}: {report['summary']}")
    context.events.progress(2, 2, "steps")
    copied = report["copied"]
    metrics = {"trained_prompt_hits": float(report["trained_prompt_hits"])}
    return {**metrics, "copied_rate": copied["pass_rate"]} if copied["num_examples"] else metrics


def _trained(context: StageContext, data: DataFiles) -> Trained:
    base, sft = _read(context.path(layout.BASE_REPORT), "base"), _read(context.path(layout.SFT_REPORT), "sft")
    try:
        dataset = base["dataset"]
        return Trained(
            subject=str(sft["subject"]),
            base_subject=str(base["subject"]),
            # A window split trains on a part of every document.
            held_out_documents=frozenset(map(str, _held_out(context)))
            if dataset["split_mode"] == "document"
            else frozenset(),
            chat_lines=frozenset(map(int, sft["dataset"]["train_lines"])),
            num_documents=data.corpus.num_documents or 1,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{layout.BASE_REPORT} or {layout.SFT_REPORT} does not say what was trained on ({error!r}); run base and "
            "sft again",
            param=layout.BASE_REPORT,
        ) from error


def _held_out(context: StageContext) -> list[str]:
    return [str(id) for id in _read(context.path(layout.HOLDOUT), "base")["document_ids"]]


def _generated(context: StageContext) -> dict[str, str]:
    """Everything that the run kept of what its models wrote, by name."""
    texts: dict[str, str] = {}
    for name in ("base", "sft"):
        sample = context.path(f"{name}/sample.txt")
        if sample.is_file():
            texts[f"{name}_sample:1"] = sample.read_text(encoding="utf-8", errors="replace")
    samples = context.path(layout.BASE_SAMPLES)
    if samples.is_file():
        for number, line in enumerate(samples.read_text(encoding="utf-8").splitlines(), start=1):
            texts[f"base_samples:{number}"] = str(json.loads(line)["text"])
    for example in _read(context.path(layout.EVAL_REPORT), "eval").get("examples", []):
        texts[f"eval_reply:{example['line']}"] = str(example["reply"])
    return texts


def _read(path: Path, stage: str) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path} cannot be read as a report ({error}); run the {stage} stage again",
            param=str(path),
        ) from error
    return report
