"""`judge(config, facts)`: every preflight check of a plan. Pure: the stage, the server and a test get the same report."""

import re
from collections.abc import Iterable
from typing import Final

from picochat_contract.configs import PreflightConfig
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightRecord, PreflightReport, PreflightStatus
from picochat_contract.preflight_corpus import CORPUS_RULES
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.preflight_honesty import HONESTY_RULES
from picochat_contract.preflight_machine import MACHINE_RULES
from picochat_contract.preflight_plan import PLAN_RULES
from picochat_contract.preflight_rules import Rule, Subject, judge_rule
from picochat_contract.preflight_tuning import EVAL_RULES, SFT_RULES
from picochat_contract.stages import StageName

RULES: Final[tuple[Rule, ...]] = (
    *CORPUS_RULES,
    *HONESTY_RULES,
    *PLAN_RULES,
    *SFT_RULES,
    *EVAL_RULES,
    *MACHINE_RULES,
)
MACHINE_CHECKS: Final = frozenset(
    {"attention_backend_runtime", "ddp_loss_spike_rollback", *(rule.id for rule in MACHINE_RULES)}
)
"""Checks that another machine, or the same one tomorrow, may answer otherwise."""
NOTES: Final = (
    "SFT loss counts assistant tokens only.",
    "Eval is closed-book: the model sees the prompt and nothing else; choice items are scored against guessing.",
    "After training, the gate asks the model its own SFT rows and held-out ones (fit and held-out fit).",
    "The cost in money is not known: no price of a device is configured anywhere.",
)


def judge(config: PreflightConfig, facts: PreflightFacts) -> PreflightReport:
    """Apply every rule that the plan's stages call for; raise SpecError where `config.plan` is not filled in."""
    subject = Subject.of(config, facts)
    rules = [rule for rule in RULES if rule.stage is None or subject.runs(rule.stage)]
    checks = tuple(judge_rule(rule, subject) for rule in rules)
    status = _status(checks)
    return PreflightReport(
        status=status,
        summary=_summary(status, checks),
        budget=subject.budget.as_dict(),
        checks=checks,
        notes=(*NOTES, *_notes(subject, len(RULES) - len(rules))),
    )


def blocks_anywhere(report: PreflightReport) -> bool:
    """False where something blocks that lies in the machine or in how it was measured, so that measuring anew may help."""
    lasting = {rule.id for rule in RULES} - MACHINE_CHECKS
    return all(check.id in lasting for check in report.blocking)


def record(report: PreflightReport, facts: PreflightFacts) -> PreflightRecord:
    """Content of `preflight.json`."""
    return PreflightRecord(
        **{name: getattr(report, name) for name in PreflightReport.model_fields}, facts=facts
    )


def table() -> list[str]:
    """All rules as a Markdown table."""
    return [
        "| check | what is measured | warns | blocks | for | what would fix it | waived by |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {rule.id} | {rule.measures} | {rule.warn_words or 'never'} | {rule.block_words or 'never'} "
            f"| {rule.profile} | {_template(rule.fix)} | {rule.waiver.flag if rule.block else ''} |"
            for rule in RULES
        ),
    ]


def _status(checks: Iterable[PreflightCheck]) -> PreflightStatus:
    found = {PreflightStatus.READY}
    for check in checks:
        if check.status is CheckStatus.BLOCK and check.waived_by is None:
            return PreflightStatus.BLOCKED
        if check.status is not CheckStatus.PASS:
            found.add(PreflightStatus.WARN)
    return PreflightStatus.WARN if PreflightStatus.WARN in found else PreflightStatus.READY


def _summary(status: PreflightStatus, checks: Iterable[PreflightCheck]) -> str:
    named = {
        "blocked by": [c.id for c in checks if c.status is CheckStatus.BLOCK and c.waived_by is None],
        "waived:": [f"{c.id} ({c.waived_by})" for c in checks if c.waived_by is not None],
        "look at": [c.id for c in checks if c.status is CheckStatus.WARN],
    }
    parts = [f"{words} {', '.join(ids)}" for words, ids in named.items() if ids]
    return "; ".join(parts) or "every check passes"


def _notes(subject: Subject, num_left_out: int) -> list[str]:
    budget = subject.budget
    kind = "long run" if budget.long_run else "short run, so limits marked (long) do not apply"
    notes = [f"This is a {kind}: {budget.long_run_reason}."]
    if num_left_out:
        last = subject.plan.stages[-1] if subject.plan.stages else StageName.PREFLIGHT.value
        notes.append(
            f"{num_left_out} checks are left out: the run ends with {last}, before what they are about."
        )
    return notes


def _template(fix: str) -> str:
    """The fix with names instead of the numbers that are filled in."""
    return re.sub(r"\{(\w+)(?::[^}]*)?\}", r"`\1`", fix)
