"""Release a run under a name: only with an approved verdict that still applies at this moment."""

from datetime import UTC, datetime

from picochat_contract.api import Page, ReleaseIn, ReleaseOut
from picochat_contract.errors import Code
from picochat_contract.gate import GateReport, Verdict
from picochat_contract.ids import new_id
from picochat_contract.states import RunState
from sqlalchemy.orm import Session

from picochat_server.artifacts.store import LocalStore
from picochat_server.auth import audit
from picochat_server.auth.principal import Principal
from picochat_server.auth.repository import lock_project
from picochat_server.gates import repository as gate_rows
from picochat_server.gates.service import changed_since, why_lapsed
from picochat_server.models import GateReportRow, Release, Run
from picochat_server.problems import ApiProblem, not_found
from picochat_server.releases import repository
from picochat_server.runs import repository as runs
from picochat_server.settings import Settings

MAX_NAMED = 10  # checks in a refusal


def release(
    session: Session, store: LocalStore, settings: Settings, principal: Principal, wanted: ReleaseIn
) -> tuple[ReleaseOut, bool]:
    """The next version of `wanted.name`; the second value is False if the newest one is this run already."""
    run = runs.run_of_project(session, principal.project_id, wanted.run)
    if run is None:
        raise not_found("run", wanted.run[:80])
    lock_project(session, principal.project_id)
    report = _approved(session, store, settings, run)
    last = repository.newest(session, principal.project_id, wanted.name)
    if last is not None and last.gate_report_id == report.id:
        return release_out(last, report.verdict), False
    row = _add(session, principal, wanted.name, run, report)
    return release_out(row, report.verdict), True


def list_releases(session: Session, project_id: str, after: str | None, limit: int) -> Page[ReleaseOut]:
    """Newest first; pass `next` as `after` to go on."""
    rows = repository.releases_before(session, project_id, after, limit + 1)
    page = [release_out(row, verdict) for row, verdict in rows[:limit]]
    has_more = len(rows) > limit
    return Page[ReleaseOut](data=page, has_more=has_more, next=page[-1].id if has_more else None)


def released(session: Session, project_id: str, name_or_run: str) -> Release | None:
    """The release that a run id or the newest version of a name stands for.

    None also where policy or checkpoint were recorded anew since. Signature and bytes are checked by
    `gates.service.why_lapsed`, which a server of models calls when it loads one.
    """
    row = repository.newest_of_run(session, project_id, name_or_run)
    row = row or repository.newest(session, project_id, name_or_run)
    if row is None:
        return None
    report = gate_rows.by_id(session, row.gate_report_id)
    run = runs.run_of_project(session, project_id, row.run_id)
    if report is None or run is None or report.verdict != Verdict.APPROVED:
        return None
    if row.checkpoint_sha256 != report.subject or changed_since(session, run, report):
        return None
    return row


def release_out(row: Release, verdict: str) -> ReleaseOut:
    return ReleaseOut(
        id=row.id,
        name=row.name,
        version=row.version,
        run=row.run_id,
        checkpoint_sha256=row.checkpoint_sha256,
        verdict=Verdict(verdict),
        created_at=row.created_at,
    )


def _approved(session: Session, store: LocalStore, settings: Settings, run: Run) -> GateReportRow:
    """The run's verdict if it is approved and still applies; 409 `gate_not_passed` otherwise."""
    row = gate_rows.latest(session, run.id)
    if row is None and run.state == RunState.BLOCKED:
        raise _refused(
            f"preflight blocked run {run.id}: GET /api/v1/runs/{run.id}/preflight says what would fix it"
        )
    if row is None:
        raise _refused(f"run {run.id} has no verdict yet; wait until its gate stage has finished")
    if row.verdict != Verdict.APPROVED:
        raise _refused(f"the verdict on run {run.id} is {row.verdict}: {_reasons(row)}")
    if lapsed := why_lapsed(session, store, settings, row):
        raise _refused(f"the verdict on run {run.id} does not apply any more: {lapsed}")
    return row


def _add(session: Session, principal: Principal, name: str, run: Run, report: GateReportRow) -> Release:
    row = Release(
        id=new_id("release"),
        project_id=principal.project_id,
        name=name,
        version=repository.next_version(session, principal.project_id, name),
        run_id=run.id,
        gate_report_id=report.id,
        checkpoint_sha256=report.subject,
        created_at=datetime.now(UTC),
    )
    session.add(row)
    session.flush()
    audit.record(
        session,
        principal,
        "release.create",
        row.id,
        name=name,
        version=row.version,
        run=run.id,
        gate_report=report.id,
        checkpoint_sha256=row.checkpoint_sha256,
    )
    return row


def _reasons(row: GateReportRow) -> str:
    """The ids of what stands in the way; the gate report has what was measured and what would fix each."""
    report = GateReport.model_validate(row.report)
    checks = report.blocking or report.warnings
    named = ", ".join(check.id for check in checks[:MAX_NAMED])
    more = f" and {len(checks) - MAX_NAMED} more" if len(checks) > MAX_NAMED else ""
    return f"{named}{more}; GET /api/v1/runs/{row.run_id}/gate says what would fix each"


def _refused(detail: str) -> ApiProblem:
    return ApiProblem(409, Code.GATE_NOT_PASSED, detail, param="run")
