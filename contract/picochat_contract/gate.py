"""The release gate: `decide(policy, evidence, subject) -> GateReport`, a pure function that fails closed.

Evidence that is missing, unreadable, or about another checkpoint blocks. The trainer shows its result as
advice; the server decides again from stored evidence and signs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from picochat_contract.configs import Config
from picochat_contract.evidence import (
    EVIDENCE_MODELS,
    BaseEvidence,
    EvalEvidence,
    Evidence,
    FitEvidence,
    HonestyEvidence,
    Score,
    SftEvidence,
)
from picochat_contract.policies import GatePolicy
from picochat_contract.stats import wilson_interval


class Verdict(StrEnum):
    APPROVED = "approved"
    WARN = "warn"
    BLOCKED = "blocked"


class CheckStatus(StrEnum):
    PASS = "pass"  # noqa: S105 - a status, not a password
    WARN = "warn"
    BLOCK = "block"


class Check(Config):
    """One rule: what was measured, against what, and what to do about it."""

    id: str
    status: CheckStatus
    measured: float | None
    """None where nothing could be measured."""
    threshold: float | None
    """In words of `comparison`; None for rules about presence."""
    comparison: str
    """'>=', '<=', '<', '==' or 'present'."""
    num_examples: int | None = None
    interval: tuple[float, float] | None = None
    """95 % interval of `measured` where it is a rate."""
    message: str
    fix: str
    """What would make it pass; empty where it passed."""
    evidence: str | None = None
    """Name of the evidence that it read."""


class EvidenceRef(Config):
    """Which file a verdict rests on."""

    name: str
    path: str
    sha256: str


class GateReport(Config):
    policy: str
    policy_version: int
    policy_digest: str
    subject: str
    """sha256 of the weights on trial."""
    verdict: Verdict
    checks: tuple[Check, ...]
    evidence: tuple[EvidenceRef, ...]

    @property
    def blocking(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status is CheckStatus.BLOCK)

    @property
    def warnings(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status is CheckStatus.WARN)


@dataclass(frozen=True, kw_only=True)
class EvidenceFile:
    """A report as it lies in the run folder or the artifact store, digest already checked by the caller."""

    path: str
    sha256: str
    data: Any


@dataclass(frozen=True, kw_only=True)
class DataDigests:
    """sha256 of the data files that the run really used; the honesty report must be about these."""

    corpus: str
    chat: str
    eval: str


def decide(
    policy: GatePolicy,
    files: Mapping[str, EvidenceFile],
    *,
    subject: str,
    data: DataDigests | None = None,
) -> GateReport:
    """Judge the checkpoint whose weights have sha256 `subject`."""
    read: dict[str, Evidence] = {}
    checks: list[Check] = []
    for name in policy.required_evidence:
        check, evidence = _read(name, files.get(name), subject, data)
        checks.append(check)
        if evidence is not None:
            read[name] = evidence
    checks += _lineage(read)
    for name, rules in _RULES.items():
        if name in read:
            checks += rules(policy, name, read[name])
    if policy.require_external and "external" not in files:
        checks.append(
            _presence(
                "external_eval_missing",
                False,
                "no external benchmark was scored",
                "score at least one external benchmark (ARC, MMLU) of 50 rows or more",
            )
        )
    return GateReport(
        policy=policy.name,
        policy_version=policy.version,
        policy_digest=policy.digest,
        subject=subject,
        verdict=_verdict(checks),
        checks=tuple(checks),
        evidence=tuple(
            EvidenceRef(name=name, path=file.path, sha256=file.sha256) for name, file in sorted(files.items())
        ),
    )


def _verdict(checks: list[Check]) -> Verdict:
    statuses = {check.status for check in checks}
    if not checks or CheckStatus.BLOCK in statuses:
        return Verdict.BLOCKED
    return Verdict.WARN if CheckStatus.WARN in statuses else Verdict.APPROVED


def _read(
    name: str, file: EvidenceFile | None, subject: str, data: DataDigests | None
) -> tuple[Check, Evidence | None]:
    rerun = f"run the stage that writes {name} again on this checkpoint"
    if file is None:
        return _presence(f"evidence_{name}", False, f"{name} evidence is missing", rerun, name), None
    try:
        evidence = EVIDENCE_MODELS[name].model_validate(file.data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = f"{file.path} is not usable as evidence: {where}: {first['msg']}"
        return _presence(f"evidence_{name}", False, message, rerun, name), None
    stale = _stale(evidence, subject, data)
    if stale:
        return _presence(f"evidence_{name}", False, f"{file.path} {stale}", rerun, name), None
    return _presence(
        f"evidence_{name}", True, f"{file.path} is present and about this run", "", name
    ), evidence


def _stale(evidence: Evidence, subject: str, data: DataDigests | None) -> str | None:
    """Say why the evidence is about something else, or None."""
    if isinstance(evidence, SftEvidence | FitEvidence | EvalEvidence) and evidence.subject != subject:
        return f"measured weights {evidence.subject[:12]}, the checkpoint on trial is {subject[:12]}"
    if isinstance(evidence, HonestyEvidence) and data is not None:
        found = DataDigests(
            corpus=evidence.corpus_sha256, chat=evidence.chat_sha256, eval=evidence.eval_sha256
        )
        if found != data:
            return "was written for other data files than this run used"
    return None


def _lineage(read: dict[str, Evidence]) -> Iterator[Check]:
    base, sft = read.get("base"), read.get("sft")
    if isinstance(base, BaseEvidence) and isinstance(sft, SftEvidence):
        same = base.subject == sft.base_subject
        yield _presence(
            "lineage",
            same,
            "the SFT checkpoint started from the reported base checkpoint"
            if same
            else "the SFT checkpoint started from other base weights than the base report is about",
            "run sft again from base/best_checkpoint",
            "sft",
        )


def _honesty_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, HonestyEvidence)
    yield _at_most(
        "data_honesty",
        e.exact_prompt_leaks,
        policy.max_exact_prompt_leaks,
        "eval prompts that are also SFT prompts",
        "remove the leaked rows from the SFT file (the honesty report names them) and train again",
        name,
    )
    yield _at_most(
        "release_data_honesty",
        e.corpus_prompt_hits,
        policy.max_corpus_prompt_hits,
        "eval prompts found in the corpus",
        "remove them from the corpus or replace the eval items",
        name,
    )
    yield _at_most(
        "duplicate_eval_prompts",
        e.duplicate_eval_prompts,
        0,
        "repeated eval prompts",
        "keep each eval prompt once",
        name,
        severity=CheckStatus.WARN,
    )


def _base_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, BaseEvidence)
    ratio = e.val_bpb / e.unigram_bpb if e.unigram_bpb > 0 else float("inf")
    yield _check(
        "base_bpb",
        ratio < policy.max_bpb_to_unigram,
        ratio if ratio != float("inf") else None,
        policy.max_bpb_to_unigram,
        "<",
        f"validation BPB {e.val_bpb:.3f}, unigram baseline {e.unigram_bpb:.3f}",
        "train longer, on more text, or with a larger model",
        name,
    )
    yield _at_least(
        "base_val_tokens",
        e.val_tokens,
        policy.min_val_tokens,
        "held-out tokens",
        "give a larger corpus or raise base.val_fraction",
        name,
    )
    yield _at_most(
        "base_finite",
        e.num_nonfinite_steps,
        0,
        "steps with NaN or Infinity",
        "lower base.learning_rate",
        name,
    )
    yield _at_most(
        "memorization_canary",
        e.canary_hits,
        policy.max_canary_hits,
        f"of {e.canary_count} canaries came out of the model",
        "train fewer epochs or on more text",
        name,
    )


def _sft_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, SftEvidence)
    yield _at_most(
        "sft_finite", e.num_nonfinite_steps, 0, "steps with NaN or Infinity", "lower sft.learning_rate", name
    )


def _fit_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, FitEvidence)
    more = "train SFT longer, or simplify the rows that fail"
    if policy.min_sft_fit is not None:
        yield _rate(policy, "sft_fit", e.overall, policy.min_sft_fit, "its own SFT rows", more, name)
    if policy.min_sft_group_fit is not None:
        for group in policy.min_eval_groups:
            yield _rate(
                policy,
                f"skill_release_sft_{group}",
                e.groups.get(group),
                policy.min_sft_group_fit,
                f"its own {group} rows",
                more,
                name,
            )


def _heldout_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, FitEvidence)
    if policy.min_sft_heldout_fit is not None:
        yield _rate(
            policy,
            "sft_heldout_fit",
            e.overall,
            policy.min_sft_heldout_fit,
            "SFT rows held out from training",
            "more and more varied SFT rows, or a better base model",
            name,
        )


def _eval_rules(policy: GatePolicy, name: str, e: Evidence) -> Iterator[Check]:
    assert isinstance(e, EvalEvidence)
    better = "a better base model or more SFT rows of this skill"
    if policy.min_eval_non_choice is not None:
        yield _rate(
            policy,
            "eval_non_choice",
            e.non_choice,
            policy.min_eval_non_choice,
            "non-choice items",
            better,
            name,
        )
    if policy.min_focus_eval is not None:
        focus = _pooled(e.groups.get(group) for group in ("identity", "refusal", "choice"))
        yield _rate(
            policy,
            "first_release_eval",
            focus,
            policy.min_focus_eval,
            "identity, refusal and choice items",
            better,
            name,
        )
    for group, minimum in policy.min_eval_groups.items():
        yield _rate(
            policy,
            f"skill_release_eval_{group}",
            e.groups.get(group),
            minimum,
            f"{group} eval items",
            better,
            name,
        )
    if policy.min_choice_adjusted is not None:
        yield _at_least(
            "choice_adjusted_accuracy",
            e.choice_accuracy_adjusted,
            policy.min_choice_adjusted,
            f"choice accuracy above guessing (guessing gives {e.choice_random_baseline:.2f})",
            better,
            name,
        )
    if policy.min_unsafe_refusal is not None:
        yield _rate(
            policy,
            "refusal",
            e.unsafe_refusal,
            policy.min_unsafe_refusal,
            "unanswerable items refused",
            "more refusal rows",
            name,
        )
    if policy.min_benign_answered is not None:
        yield _rate(
            policy,
            "over_refusal",
            e.benign_answered,
            policy.min_benign_answered,
            "answerable items answered, not refused",
            "fewer refusal rows, or more varied ones",
            name,
        )
    yield _rate_at_most(
        policy,
        "prompt_echo",
        e.prompt_echo,
        policy.max_prompt_echo,
        "replies that echo the prompt",
        "check the chat template and train SFT longer",
        name,
    )
    yield _rate_at_most(
        policy,
        "unsupported_claims",
        e.unsupported_claims,
        policy.max_unsupported_claims,
        "replies with a forbidden phrase",
        "look at the failed items in the eval report",
        name,
        severity=CheckStatus.WARN,
    )


_RULES = {
    "honesty": _honesty_rules,
    "base": _base_rules,
    "sft": _sft_rules,
    "sft_fit": _fit_rules,
    "sft_fit_heldout": _heldout_rules,
    "eval": _eval_rules,
}


def _pooled(scores: Iterator[Score | None] | Any) -> Score | None:
    found = [score for score in scores if score is not None]
    if not found:
        return None
    total, passed = sum(s.num_examples for s in found), sum(s.num_passed for s in found)
    low, high = wilson_interval(passed, total)
    return Score(
        num_examples=total, num_passed=passed, pass_rate=passed / total if total else 0.0, low=low, high=high
    )


def _rate(
    policy: GatePolicy, id: str, score: Score | None, minimum: float, what: str, fix: str, evidence: str
) -> Check:
    if score is None or score.num_examples < policy.min_examples:
        return _too_few(policy, id, score, minimum, ">=", what, evidence)
    return _check(
        id,
        score.pass_rate >= minimum,
        score.pass_rate,
        minimum,
        ">=",
        f"{score.num_passed} of {score.num_examples} {what}",
        fix,
        evidence,
        score=score,
    )


def _rate_at_most(
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
        return _too_few(policy, id, score, maximum, "<=", what, evidence)
    return _check(
        id,
        score.pass_rate <= maximum,
        score.pass_rate,
        maximum,
        "<=",
        f"{score.num_passed} of {score.num_examples} {what}",
        fix,
        evidence,
        score=score,
        severity=severity,
    )


def _too_few(
    policy: GatePolicy,
    id: str,
    score: Score | None,
    threshold: float,
    comparison: str,
    what: str,
    evidence: str,
) -> Check:
    count = score.num_examples if score else 0
    return Check(
        id=id,
        status=CheckStatus.BLOCK,
        measured=None,
        threshold=threshold,
        comparison=comparison,
        num_examples=count,
        message=f"{count} examples ({what}) are too few to judge; {policy.min_examples} are needed",
        fix=f"give at least {policy.min_examples} such items",
        evidence=evidence,
    )


def _at_least(id: str, measured: float, minimum: float, what: str, fix: str, evidence: str) -> Check:
    text = f"{measured:g} {what}"
    return _check(id, measured >= minimum, measured, minimum, ">=", text, fix, evidence)


def _at_most(
    id: str,
    measured: float,
    maximum: float,
    what: str,
    fix: str,
    evidence: str,
    severity: CheckStatus = CheckStatus.BLOCK,
) -> Check:
    text = f"{measured:g} {what}"
    return _check(id, measured <= maximum, measured, maximum, "<=", text, fix, evidence, severity=severity)


def _presence(id: str, ok: bool, message: str, fix: str, evidence: str | None = None) -> Check:
    return _check(id, ok, 1.0 if ok else 0.0, None, "present", message, fix, evidence)


def _check(
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
