"""Decide a run again from stored evidence, sign the report, and say later whether it still applies.

The trainer's own report is advice. A verdict applies while its signature is ours and deciding again, now, from
what lies in the store gives the same report: one changed byte of checkpoint, data, evidence or policy ends it.
"""

from datetime import UTC, datetime
from typing import Any

from picochat_contract.api import GateOut
from picochat_contract.canonical import canonical_json
from picochat_contract.errors import Code
from picochat_contract.events import EventType
from picochat_contract.gate import Check, CheckStatus, GateReport, Verdict, decide
from picochat_contract.ids import new_id
from picochat_contract.policies import POLICIES
from picochat_contract.stages import StageName
from picochat_contract.states import RunState
from sqlalchemy.orm import Session, sessionmaker

from picochat_server.artifacts.service import artifact_at, artifacts_of_run
from picochat_server.artifacts.store import LocalStore
from picochat_server.db import allow_slow_files, transaction
from picochat_server.gates import repository, signing
from picochat_server.gates.evidence import HASHED, SUBJECT, collect, with_own_preflight
from picochat_server.models import GateReportRow, Run
from picochat_server.preflight import repository as preflight
from picochat_server.problems import ApiProblem, not_found
from picochat_server.runs import repository as runs
from picochat_server.runs.events import append
from picochat_server.settings import Settings

AGAIN = "submit the run again: stages that did not change are reused and the gate decides anew"


def decide_run(session: Session, store: LocalStore, settings: Settings, run: Run) -> Verdict:
    """Decide, sign and store; set `run.verdict` and tell it as a GATE event. Never raises over bad evidence."""
    report, advice = _decide(session, store, run)
    content = report.model_dump(mode="json")
    session.add(
        GateReportRow(
            id=new_id("gate_report"),
            run_id=run.id,
            policy=report.policy,
            policy_digest=report.policy_digest,
            subject=report.subject,
            verdict=report.verdict.value,
            report=content,
            signature=signing.sign(settings.secret_key, content),
            advice_verdict=advice.value if advice else None,
            decided_at=datetime.now(UTC),
        )
    )
    run.verdict = report.verdict.value
    data = {
        "verdict": report.verdict.value,
        "blocking": [check.id for check in report.blocking],
        "subject": report.subject,
    }
    append(session, run, EventType.GATE, StageName.GATE, None, data)
    session.flush()
    return report.verdict


def hash_ahead(sessions: sessionmaker[Session], store: LocalStore, project_id: str, run_id: str) -> None:
    """Hash the large files that a decision about this run rests on, with no transaction open.

    The decision then compares, under its locks; whatever changed in between is hashed again.
    """
    with transaction(sessions) as session:
        if runs.run_of_project(session, project_id, run_id) is None:
            return  # the request itself says so
        artifacts = artifacts_of_run(session, project_id, run_id)
    for artifact in artifacts:
        if artifact.path in HASHED.values():
            store.hash_ahead(artifact.sha256)


def latest(session: Session, run_id: str) -> GateReportRow | None:
    """The run's newest report; the caller knows that the run is the project's."""
    return repository.latest(session, run_id)


def gate_out(session: Session, project_id: str, run_id: str) -> GateOut:
    """The newest report as it was decided and signed; 404 `gate_not_ready` before."""
    run = runs.run_of_project(session, project_id, run_id)
    if run is None:
        raise not_found("run", run_id[:80])
    row = repository.latest(session, run_id)
    if row is None:
        why = (
            f"preflight blocked it before its gate; GET /api/v1/runs/{run_id}/preflight says what would fix that"
            if run.state == RunState.BLOCKED
            else "its gate stage has not finished, or the run has none"
        )
        raise ApiProblem(404, Code.GATE_NOT_READY, f"run {run_id} has no gate report: {why}")
    return GateOut(
        id=row.id,
        run=row.run_id,
        report=GateReport.model_validate(row.report),
        decided_at=row.decided_at,
        signature=row.signature,
        advice_verdict=Verdict(row.advice_verdict) if row.advice_verdict else None,
    )


def why_lapsed(
    session: Session, store: LocalStore, settings: Settings, row: GateReportRow, *, reads_bytes: bool = True
) -> str | None:
    """Why the verdict does not apply any more, with what to do; None while it does.

    `reads_bytes=False` leaves out hashing the stored files: for a request on a model that was hashed when it
    was loaded.
    """
    if not signing.verify(settings.secret_key, row.report, row.signature) or not _columns_agree(row):
        return f"gate report {row.id} is not signed by this server, or was edited; {AGAIN}"
    run = repository.run_of(session, row)
    if changed := changed_since(session, run, row):
        return changed
    if not reads_bytes:
        return None
    report, _ = _decide(session, store, run)
    if canonical_json(report.model_dump(mode="json")) != canonical_json(row.report):
        return f"deciding again gives another report: {_difference(report)}; {AGAIN}"
    return None


def changed_since(session: Session, run: Run, row: GateReportRow) -> str | None:
    """What is recorded differently since `row` was decided: policy or checkpoint; None if nothing is."""
    policy = POLICIES.get(row.policy)
    if policy is None or policy.digest != row.policy_digest or run.gate_profile != row.policy:
        return f"gate policy {row.policy!r} is not the one of the verdict any more; {AGAIN}"
    if recorded_subject(session, run) != row.subject:
        return f"the run's checkpoint is not the one that was judged ({row.subject[:12]}); {AGAIN}"
    return None


def recorded_subject(session: Session, run: Run) -> str | None:
    """sha256 of the run's SFT weights as recorded; None where there are none."""
    try:
        return artifact_at(session, run.project_id, run.id, SUBJECT)[0]
    except ApiProblem:
        return None


def _decide(session: Session, store: LocalStore, run: Run) -> tuple[GateReport, Verdict | None]:
    artifacts = artifacts_of_run(session, run.project_id, run.id)
    allow_slow_files(session)
    found = with_own_preflight(collect(store, artifacts), preflight.of_run(session, run.id))
    policy = POLICIES.get(run.gate_profile)
    if policy is None:
        return _no_policy(run.gate_profile, found.subject), found.advice
    report = decide(policy, found.files, subject=found.subject, data=found.data)
    if found.faults:
        checks = (*found.faults, *report.checks)
        report = report.model_copy(update={"checks": checks, "verdict": Verdict.BLOCKED})
    return report, found.advice


def _no_policy(profile: str, subject: str) -> GateReport:
    check = Check(
        id="policy",
        status=CheckStatus.BLOCK,
        measured=None,
        threshold=None,
        comparison="present",
        message=f"there is no gate policy {profile!r}",
        fix=f"set gate.profile to one of {', '.join(POLICIES)}",
    )
    return GateReport(
        policy=profile,
        policy_version=0,
        policy_digest="",
        subject=subject,
        verdict=Verdict.BLOCKED,
        checks=(check,),
        evidence=(),
    )


def _columns_agree(row: GateReportRow) -> bool:
    """The columns repeat parts of the signed report; an edit of one alone must not help."""
    report: dict[str, Any] = row.report
    return (row.verdict, row.subject, row.policy, row.policy_digest) == tuple(
        report.get(key) for key in ("verdict", "subject", "policy", "policy_digest")
    )


def _difference(report: GateReport) -> str:
    if not report.blocking:
        return f"the verdict would be {report.verdict.value}"
    return "; ".join(check.message for check in report.blocking[:3])
