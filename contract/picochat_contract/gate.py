"""The release gate: `decide(policy, evidence, subject) -> GateReport`, a pure function that fails closed.

Evidence that is missing, unreadable, or about another checkpoint blocks. The trainer shows its result as
advice; the server decides again from stored evidence and signs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from picochat_contract.evidence import (
    EVIDENCE_MODELS,
    AuditEvidence,
    BaseEvidence,
    Compared,
    EvalEvidence,
    Evidence,
    ExternalEvidence,
    FitEvidence,
    HonestyEvidence,
    PreflightEvidence,
    SftEvidence,
)
from picochat_contract.gate_checks import presence, rate
from picochat_contract.gate_report import Check, CheckStatus, EvidenceRef, GateReport, Verdict
from picochat_contract.gate_rules import RULES
from picochat_contract.policies import GatePolicy

__all__ = [
    "Check",
    "CheckStatus",
    "DataDigests",
    "EvidenceFile",
    "EvidenceRef",
    "GateReport",
    "Verdict",
    "decide",
]


@dataclass(frozen=True, kw_only=True)
class EvidenceFile:
    """A report as it lies in the run folder or the artifact store, digest already checked by the caller."""

    path: str
    sha256: str
    data: Any


@dataclass(frozen=True, kw_only=True)
class DataDigests:
    """sha256 of the data files that the run really used; honesty, audit and preflight must be about these."""

    corpus: str
    """Of corpus_manifest.json, which holds the digests of all shards."""
    chat: str
    eval: str


def decide(
    policy: GatePolicy,
    files: Mapping[str, EvidenceFile],
    *,
    subject: str,
    data: DataDigests,
) -> GateReport:
    """Judge the checkpoint whose weights have sha256 `subject`."""
    read: dict[str, Evidence] = {}
    checks: list[Check] = []
    for name in policy.required_evidence:
        check, evidence = _read(name, files.get(name), subject, data)
        checks.append(check)
        if evidence is not None:
            read[name] = evidence
    checks += [*_lineage(read), *_completeness(read)]
    for name, rules in RULES.items():
        if name in read:
            checks += rules(policy, name, read[name])
    if policy.require_external:
        checks += _external(policy, files.get("external"), subject)
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
    name: str, file: EvidenceFile | None, subject: str, data: DataDigests
) -> tuple[Check, Evidence | None]:
    rerun = f"run the stage that writes {name} again on this checkpoint"
    if file is None:
        return presence(f"evidence_{name}", False, f"{name} evidence is missing", rerun, name), None
    try:
        evidence = EVIDENCE_MODELS[name].model_validate(file.data)
    except ValidationError as error:
        message = f"{file.path} is not usable as evidence: {_first(error)}"
        return presence(f"evidence_{name}", False, message, rerun, name), None
    stale = _stale(evidence, subject, data)
    if stale:
        return presence(f"evidence_{name}", False, f"{file.path} {stale}", rerun, name), None
    return presence(
        f"evidence_{name}", True, f"{file.path} is present and about this run", "", name
    ), evidence


def _external(policy: GatePolicy, file: EvidenceFile | None, subject: str) -> Iterator[Check]:
    id, fix = (
        "external_eval_missing",
        (
            f"score at least one external benchmark (ARC, MMLU) of {policy.min_external_examples} rows or more "
            "on this checkpoint"
        ),
    )
    if file is None:
        yield presence(id, False, "no external benchmark was scored", fix, "external")
        return
    try:
        evidence = ExternalEvidence.model_validate(file.data)
    except ValidationError as error:
        yield presence(id, False, f"{file.path} is not usable as evidence: {_first(error)}", fix, "external")
        return
    if evidence.subject != subject:
        yield presence(id, False, f"{file.path} {_other_weights(evidence.subject, subject)}", fix, "external")
        return
    yield presence(id, True, f"{len(evidence.benchmarks)} external benchmarks were scored", "", "external")
    strict = policy.model_copy(update={"min_examples": policy.min_external_examples})
    for name, score in sorted(evidence.benchmarks.items()):
        what, better = f"rows of {name}", "a better base model; the score must lie clearly above guessing"
        yield rate(
            strict, f"external_eval_{name}", score, policy.min_external_score, what, better, "external"
        )


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _other_weights(measured: str, subject: str) -> str:
    return f"measured weights {measured[:12]}, the checkpoint on trial is {subject[:12]}"


def _stale(evidence: Evidence, subject: str, data: DataDigests) -> str | None:
    """Say why the evidence is about something else, or None."""
    judged = SftEvidence | FitEvidence | EvalEvidence | AuditEvidence
    if isinstance(evidence, judged) and evidence.subject != subject:
        return _other_weights(evidence.subject, subject)
    if isinstance(evidence, Compared):
        found = DataDigests(
            corpus=evidence.corpus_sha256, chat=evidence.chat_sha256, eval=evidence.eval_sha256
        )
        if found != data:
            return "was written for other data files than this run used"
    if isinstance(evidence, PreflightEvidence):
        files = evidence.facts
        measured = (files.corpus, files.chat, files.eval)
        if tuple(file.sha256 if file else None for file in measured) != (data.corpus, data.chat, data.eval):
            return "was measured on other data files than this run used"
    return None


def _lineage(read: dict[str, Evidence]) -> Iterator[Check]:
    base, sft = read.get("base"), read.get("sft")
    if isinstance(base, BaseEvidence) and isinstance(sft, SftEvidence):
        same = base.subject == sft.base_subject
        yield presence(
            "lineage",
            same,
            "the SFT checkpoint started from the reported base checkpoint"
            if same
            else "the SFT checkpoint started from other base weights than the base report is about",
            "run sft again from base/best_checkpoint",
            "sft",
        )


def _completeness(read: dict[str, Evidence]) -> Iterator[Check]:
    """An eval of some of the items would let the others hide."""
    honesty, found = read.get("honesty"), read.get("eval")
    if isinstance(honesty, HonestyEvidence) and isinstance(found, EvalEvidence):
        judged = found.overall.num_examples
        yield presence(
            "eval_complete",
            judged == honesty.num_eval,
            f"{judged} of {honesty.num_eval} eval items were judged",
            "run eval again on the whole eval file",
            "eval",
        )
