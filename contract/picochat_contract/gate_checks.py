"""How a single check is made: compare a measurement with a threshold, or refuse to judge on too few examples."""

from collections.abc import Iterable

from picochat_contract.evidence import Score
from picochat_contract.gate_report import Check, CheckStatus
from picochat_contract.policies import GatePolicy
from picochat_contract.stats import wilson_interval


def pooled(scores: Iterable[Score | None]) -> Score | None:
    found = [score for score in scores if score is not None]
    if not found:
        return None
    total, passed = sum(s.num_examples for s in found), sum(s.num_passed for s in found)
    low, high = wilson_interval(passed, total)
    return Score(
        num_examples=total, num_passed=passed, pass_rate=passed / total if total else 0.0, low=low, high=high
    )


def rate(
    policy: GatePolicy, id: str, score: Score | None, minimum: float, what: str, fix: str, evidence: str
) -> Check:
    if score is None or score.num_examples < policy.min_examples:
        return too_few(policy, id, score, minimum, ">=", what, evidence)
    return check(
        id,
        score.pass_rate >= minimum,
        score.pass_rate,
        minimum,
        ">=",
        f"{score.num_passed} of {score.num_examples}: {what}",
        fix,
        evidence,
        score=score,
    )


def rate_at_most(
    policy: GatePolicy,
    id: str,
    score: Score,
    maximum: float,
    what: str,
    fix: str,
    evidence: str,
    severity: CheckStatus = CheckStatus.BLOCK,
) -> Check:
    if score.num_examples < policy.min_examples:
        return too_few(policy, id, score, maximum, "<=", what, evidence, severity)
    return check(
        id,
        score.pass_rate <= maximum,
        score.pass_rate,
        maximum,
        "<=",
        f"{score.num_passed} of {score.num_examples}: {what}",
        fix,
        evidence,
        score=score,
        severity=severity,
    )


def too_few(
    policy: GatePolicy,
    id: str,
    score: Score | None,
    threshold: float,
    comparison: str,
    what: str,
    evidence: str,
    severity: CheckStatus = CheckStatus.BLOCK,
) -> Check:
    """The check of a rate over fewer than `policy.min_examples` examples: it cannot pass."""
    count = score.num_examples if score else 0
    return Check(
        id=id,
        status=severity,
        measured=None,
        threshold=threshold,
        comparison=comparison,
        num_examples=count,
        message=f"{count} examples ({what}) are too few to judge; {policy.min_examples} are needed",
        fix=f"give at least {policy.min_examples} such items",
        evidence=evidence,
    )


def at_least(id: str, measured: float, minimum: float, what: str, fix: str, evidence: str) -> Check:
    text = f"{_number(measured)} {what}"
    return check(id, measured >= minimum, measured, minimum, ">=", text, fix, evidence)


def at_most(
    id: str,
    measured: float,
    maximum: float,
    what: str,
    fix: str,
    evidence: str,
    severity: CheckStatus = CheckStatus.BLOCK,
) -> Check:
    text = f"{_number(measured)} {what}"
    return check(id, measured <= maximum, measured, maximum, "<=", text, fix, evidence, severity=severity)


def presence(id: str, ok: bool, message: str, fix: str, evidence: str | None = None) -> Check:
    return check(id, ok, 1.0 if ok else 0.0, None, "present", message, fix, evidence)


def check(
    id: str,
    ok: bool,
    measured: float | None,
    threshold: float | None,
    comparison: str,
    message: str,
    fix: str,
    evidence: str | None,
    *,
    score: Score | None = None,
    severity: CheckStatus = CheckStatus.BLOCK,
) -> Check:
    return Check(
        id=id,
        status=CheckStatus.PASS if ok else severity,
        measured=measured,
        threshold=threshold,
        comparison=comparison,
        num_examples=score.num_examples if score else None,
        interval=(score.low, score.high) if score else None,
        message=message,
        fix="" if ok else fix,
        evidence=evidence,
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3f}"
