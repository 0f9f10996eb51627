"""Preflight for people: status, what would fix it, the plan's budget, every check, and what was measured."""

from typing import Final

from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightRecord
from picochat_contract.preflight_rules import Waiver

ORDER: Final = {CheckStatus.BLOCK: 0, CheckStatus.WARN: 2, CheckStatus.PASS: 3}
BUDGET: Final = {
    "estimated_parameters": "parameters",
    "base_planned_tokens": "planned training tokens",
    "target_training_tokens": "target: tokens",
    "planned_to_target_ratio": "planned over target",
    "recommended_base_steps": "base steps that meet the target",
    "recommended_tokens_per_step": "with so many tokens in each",
    "estimated_corpus_tokens": "tokens in the corpus, estimated",
    "estimated_base_epochs": "epochs over the corpus",
    "estimated_sft_example_epochs": "epochs over the SFT rows",
    "base_effective_tokens_per_step": "tokens per optimizer step",
    "base_batch_source": "where they come from",
    "law_tokens_per_step": "what Step Law gives for the planned tokens",
    "base_effective_learning_rate": "base learning rate, after scaling",
    "base_effective_weight_decay": "base weight decay",
    "law_learning_rate": "what Step Law gives for it",
    "sft_effective_learning_rate": "SFT learning rate, after scaling",
    "device": "device",
    "ddp_world_size": "ranks",
    "estimated_hours": "hours of training, estimated",
}
SIZES: Final = {
    "memory_bytes": "memory per rank",
    "device_memory_bytes": "memory that a rank has",
    "disk_bytes": "disk",
}


def severity(check: PreflightCheck) -> int:
    """0 blocks, 1 is waived, 2 warns, 3 passes."""
    return 1 if check.waived_by is not None else ORDER[check.status]


def preflight_markdown(report: PreflightRecord) -> str:
    """Content of `preflight.md`."""
    lines = [
        "# Preflight",
        "",
        f"Status: **{report.status}** - {report.summary}.",
        "",
        *_fixes(report),
        "## Plan",
        "",
        "| | |",
        "|---|---:|",
        *(f"| {words} | {_shown(report.budget[name])} |" for name, words in BUDGET.items()),
        *(f"| {words} | {float(report.budget[name] or 0) / 1e9:.2f} GB |" for name, words in SIZES.items()),
        "",
        "## Checks",
        "",
        "| check | status | measured | warns | blocks | for | what |",
        "|---|---|---:|---|---|---|---|",
        *(_row(check) for check in sorted(report.checks, key=severity)),
        "",
        "## Notes",
        "",
        *(f"- {note}" for note in report.notes),
        "",
        "## Measured on",
        "",
        *_measured_on(report),
        "",
    ]
    return "\n".join(lines)


def _fixes(report: PreflightRecord) -> list[str]:
    found = [check for check in sorted(report.checks, key=severity) if check.status is not CheckStatus.PASS]
    if not found:
        return []
    return ["## To do", "", *(f"- **{c.id}** ({_status(c)}): {c.message}. {_sentence(c)}" for c in found), ""]


def _sentence(check: PreflightCheck) -> str:
    text = f"{check.fix[:1].upper()}{check.fix[1:]}."
    if check.waived_by is None:
        return text
    flag = Waiver(check.waived_by.rpartition(".")[2]).flag
    return f"{text} It blocks, and was waived by {check.waived_by} ({flag})."


def _row(check: PreflightCheck) -> str:
    cells = (
        check.id,
        _status(check),
        _shown(check.measured),
        check.warn or "never",
        check.block or "never",
        check.profile,
        check.message,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _status(check: PreflightCheck) -> str:
    return f"{check.status} (waived)" if check.waived_by is not None else str(check.status)


def _measured_on(report: PreflightRecord) -> list[str]:
    facts, machine = report.facts, report.facts.machine
    digests = {
        "corpus_manifest.json": facts.corpus.sha256,
        "chat_benchmark.jsonl": facts.chat.sha256 if facts.chat else None,
        "eval_benchmark.jsonl": facts.eval.sha256 if facts.eval else None,
        "preferences.jsonl": facts.preferences.sha256 if facts.preferences else None,
        "honesty/honesty_report.json": facts.honesty.sha256 if facts.honesty else None,
    }
    gpus = ", ".join(f"{gpu.name} ({gpu.memory_bytes / 1e9:.0f} GB)" for gpu in machine.gpus) or "no GPU"
    return [
        *(f"- {name}: `{digest}`" for name, digest in digests.items() if digest is not None),
        f"- Machine: {gpus}, {machine.cpu_count} cores, {machine.ram_bytes / 1e9:.1f} GB of memory, "
        f"{machine.free_disk_bytes / 1e9:.1f} GB of disk free.",
    ]


def _shown(value: float | bool | str | None) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
