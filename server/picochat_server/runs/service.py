"""Runs: submit once, read, cancel."""

from datetime import UTC, datetime
from typing import Any

from picochat_contract.api import EventOut, MetricSeries, MetricsOut, Page, RunOut, RunSummary
from picochat_contract.canonical import digest_of
from picochat_contract.data_configs import ArtifactSource
from picochat_contract.errors import Code, SpecError
from picochat_contract.ids import new_id
from picochat_contract.paid_launch import refuse_unconfirmed
from picochat_contract.spec import (
    RunSpec,
    check_claimable,
    check_uploadable,
    expand,
    parse_mapping,
    stage_needs,
)
from picochat_contract.stages import StageName
from picochat_contract.states import RUN_FINAL, DesiredState, RunState, StageState
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from picochat_server.artifacts.service import readable
from picochat_server.artifacts.store import LocalStore
from picochat_server.auth import audit
from picochat_server.auth.principal import Principal
from picochat_server.datasets.resolution import resolve
from picochat_server.models import Run, Stage
from picochat_server.problems import ApiProblem, not_found
from picochat_server.runs import chain, repository, views
from picochat_server.settings import Settings

MAX_POINTS = 500  # of one metric series in an answer
MAX_IDEMPOTENCY_KEY = 255


def submit(
    session: Session,
    store: LocalStore,
    settings: Settings,
    principal: Principal,
    raw: dict[str, Any],
    idempotency_key: str | None,
) -> RunOut:
    """Accept a run, or give back the one that the same key submitted before."""
    spec = parse_mapping(raw)
    check_uploadable(spec)
    check_claimable(spec)
    # Without the confirmation: who repeats a request that was accepted gets that run, confirmed as it was.
    digest = digest_of(spec.model_dump(mode="json", exclude={"confirm_paid_launch"}))
    if idempotency_key is not None:
        _check_idempotency_key(idempotency_key)
        if earlier := _submitted_before(session, principal, idempotency_key, digest):
            return run_out(session, principal.project_id, earlier.id)
    launch = refuse_unconfirmed(spec)
    resolved = resolve(session, principal.project_id, spec)
    _check_sources(session, principal.project_id, resolved.concrete)
    run = _new_run(principal, resolved.pinned, idempotency_key, digest)
    try:
        with session.begin_nested():
            session.add(run)
    except IntegrityError:  # another request with this key committed meanwhile
        assert idempotency_key is not None, "only the idempotency key is unique"
        found = _submitted_before(session, principal, idempotency_key, digest)
        if found is None:
            raise
        return run_out(session, principal.project_id, found.id)
    session.add_all(_new_stages(run, resolved.concrete))
    session.flush()
    audit.record(session, principal, "run.submit", run.id, name=run.name)
    if launch is not None:
        audit.record(session, principal, repository.CONFIRMED, run.id, **launch.model_dump(mode="json"))
    chain.advance(session, store, settings, run)
    return run_out(session, principal.project_id, run.id)


def run_out(session: Session, project_id: str, run_id: str) -> RunOut:
    run = _found(session, project_id, run_id)
    session.flush()
    return views.run_out(
        run,
        repository.stages_of(session, run.id),
        repository.attempts_of(session, run.id),
        repository.project_name(session, project_id),
        repository.confirmation_of(session, run),
    )


def list_runs(
    session: Session, project_id: str, after: str | None, limit: int, state: RunState | None = None
) -> Page[RunSummary]:
    """Runs newest first; `after` is the id of the last one seen."""
    last = None
    if after is not None:
        last = repository.run_of_project(session, project_id, after)
        if last is None:
            raise ApiProblem(
                422, Code.INVALID_REQUEST, f"after: no run {after!r} in this project", param="after"
            )
    rows = repository.runs_before(session, project_id, last, limit + 1, state.value if state else None)
    shown = rows[:limit]
    stages = repository.stages_of_runs(session, [run.id for run in shown])
    project = repository.project_name(session, project_id)
    return Page(
        data=[views.run_summary(run, [s for s in stages if s.run_id == run.id], project) for run in shown],
        has_more=len(rows) > limit,
        next=shown[-1].id if len(rows) > limit else None,
    )


def list_events(session: Session, project_id: str, run_id: str, after: int, limit: int) -> Page[EventOut]:
    """Events oldest first, those with a sequence number above `after`."""
    run = _found(session, project_id, run_id)
    rows = repository.events_after(session, run.id, after, limit + 1)
    shown = rows[:limit]
    return Page(
        data=[views.event_out(event) for event in shown],
        has_more=len(rows) > limit,
        next=str(shown[-1].seq) if len(rows) > limit else None,
    )


def metrics_out(session: Session, project_id: str, run_id: str) -> MetricsOut:
    """Every metric series of the run, thinned; a reused stage shows the curves of the stage that really ran."""
    run = _found(session, project_id, run_id)
    stages = repository.stages_of(session, run.id)
    sources = [
        (repository.run_of_stage(session, s.cached_from) if s.cached_from else run.id, s.name) for s in stages
    ]
    points = repository.metric_points(session, [(r, name) for r, name in sources if r], MAX_POINTS)
    series: dict[tuple[str, str], MetricSeries] = {}
    for stage, name, step, value in points:
        key = (stage, name)
        if key not in series:
            series[key] = MetricSeries(stage=StageName(stage), name=name, steps=[], values=[])
        series[key].steps.append(step)
        series[key].values.append(value)
    return MetricsOut(series=list(series.values()))


def cancel(session: Session, principal: Principal, run_id: str) -> RunOut:
    """Ask for the end of a run. What waits ends at once; what runs writes a checkpoint first."""
    _found(session, principal.project_id, run_id)
    run = repository.lock_run(session, run_id)
    assert run is not None, "it was found above and runs are never deleted"
    if run.state in (RunState.SUCCEEDED, RunState.BLOCKED, RunState.FAILED):
        raise ApiProblem(
            409, Code.ILLEGAL_TRANSITION, f"run {run.id} has already {run.state}; nothing to cancel"
        )
    if run.desired_state != DesiredState.CANCELLED and RunState(run.state) not in RUN_FINAL:
        run.desired_state = DesiredState.CANCELLED.value
        chain.cancel_stages(session, run)
        audit.record(session, principal, "run.cancel", run.id)
        chain.settle(session, run)
    return run_out(session, principal.project_id, run.id)


def request_checkpoint(session: Session, principal: Principal, run_id: str) -> RunOut:
    """Have each running stage write a resume checkpoint soon; refused where nothing runs."""
    _found(session, principal.project_id, run_id)
    if not repository.ask_for_checkpoint(session, run_id):
        raise ApiProblem(
            409,
            Code.ILLEGAL_TRANSITION,
            f"no stage of run {run_id} is running, so there is nothing to checkpoint; ask again while one runs",
        )
    audit.record(session, principal, "run.checkpoint", run_id)
    return run_out(session, principal.project_id, run_id)


def _found(session: Session, project_id: str, run_id: str) -> Run:
    run = repository.run_of_project(session, project_id, run_id)
    if run is None:
        raise not_found("run", run_id[:80])
    return run


def _submitted_before(session: Session, principal: Principal, key: str, digest: str) -> Run | None:
    run = repository.run_by_idempotency_key(session, principal.project_id, key)
    if run is not None and run.request_digest != digest:
        raise ApiProblem(
            422,
            Code.IDEMPOTENCY_CONFLICT,
            f"Idempotency-Key {key!r} was used for run {run.id} with another spec; use a new key for a new run",
            param="Idempotency-Key",
        )
    return run


def _check_idempotency_key(key: str) -> None:
    if not (0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isprintable()):
        raise ApiProblem(
            422,
            Code.INVALID_REQUEST,
            f"Idempotency-Key: expected 1 to {MAX_IDEMPOTENCY_KEY} printable characters, got {len(key)}",
            param="Idempotency-Key",
        )


def _check_sources(session: Session, project_id: str, spec: RunSpec) -> None:
    """Every file that the spec names by digest must be one that this project may read."""
    for source in spec.dataset.references:
        if isinstance(source, ArtifactSource) and not readable(session, project_id, source.digest):
            raise SpecError(
                Code.SOURCE_NOT_UPLOADED,
                f"dataset source {source.name!r}: no file with sha256 {source.digest} was uploaded to this project; "
                f"PUT it to /api/v1/artifacts/{source.digest} first, or let `picochat-client submit` do both",
                param="dataset.sources",
            )


def _new_run(principal: Principal, spec: RunSpec, idempotency_key: str | None, digest: str) -> Run:
    return Run(
        id=new_id("run"),
        project_id=principal.project_id,
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        scale=spec.scale,
        gate_profile=spec.gate.profile,
        state=RunState.QUEUED.value,
        desired_state=DesiredState.RUNNING.value,
        metrics={},
        event_seq=0,
        idempotency_key=idempotency_key,
        request_digest=digest,
        created_at=datetime.now(UTC),
    )


def _new_stages(run: Run, spec: RunSpec) -> list[Stage]:
    return [
        Stage(
            id=new_id("stage"),
            run_id=run.id,
            name=name.value,
            position=position,
            config=config.model_dump(mode="json"),
            needs=[need.value for need in stage_needs(spec, name)],
            state=StageState.PENDING.value,
            desired_state=DesiredState.RUNNING.value,
            epoch=0,
            num_attempts=0,
            max_attempts=spec.max_attempts,
            checkpoint_now=False,
            metrics={},
        )
        for position, (name, config) in enumerate(expand(spec).items())
    ]
