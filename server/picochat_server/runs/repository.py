"""SQL of runs, their stages, attempts, events and metrics. Every change of a run first locks its row:
the order run, stage, attempt, worker is the same everywhere, so writers wait and never deadlock."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from picochat_contract.ids import is_id
from picochat_contract.states import STAGE_DONE, StageState
from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from picochat_server.db import database_now
from picochat_server.models import (
    ApiKey,
    Attempt,
    Audit,
    Event,
    Metric,
    Outbox,
    Project,
    Run,
    Stage,
    StageArtifact,
)

CONFIRMED = "run.confirm_paid_launch"
"""The audit's action; its data is the PaidLaunch that was confirmed."""
MAX_TWINS = 20  # finished stages with one fingerprint that are looked at for a reuse

# --- runs ---


def run_of_project(session: Session, project_id: str, run_id: str) -> Run | None:
    if not is_id(run_id):
        return None
    return session.scalar(select(Run).where(Run.id == run_id, Run.project_id == project_id))


def run_by_id(session: Session, run_id: str) -> Run | None:
    return session.get(Run, run_id)


def lock_run(session: Session, run_id: str) -> Run | None:
    """The run, fresh, with its row locked until the transaction ends."""
    query = select(Run).where(Run.id == run_id).with_for_update()
    return session.scalar(query.execution_options(populate_existing=True))


def run_by_idempotency_key(session: Session, project_id: str, key: str) -> Run | None:
    query = select(Run).where(Run.project_id == project_id, Run.idempotency_key == key)
    return session.scalar(query)


def runs_before(
    session: Session, project_id: str, after: Run | None, limit: int, state: str | None
) -> list[Run]:
    """Runs newest first, from the one behind `after`."""
    query = select(Run).where(Run.project_id == project_id)
    if after is not None:
        query = query.where(tuple_(Run.created_at, Run.id) < tuple_(after.created_at, after.id))
    if state is not None:
        query = query.where(Run.state == state)
    return list(session.scalars(query.order_by(Run.created_at.desc(), Run.id.desc()).limit(limit)))


def project_name(session: Session, project_id: str) -> str:
    return session.scalars(select(Project.name).where(Project.id == project_id)).one()


def confirmation_of(session: Session, run: Run) -> tuple[Audit, str | None] | None:
    """The audit row of the run's confirmed launch, and the name of the key; None where none was asked for."""
    if not run.spec.get("confirm_paid_launch"):
        return None  # most runs: spares them a search of the audit
    query = (
        select(Audit, ApiKey.name)
        .outerjoin(ApiKey, ApiKey.id == Audit.actor)
        .where(Audit.project_id == run.project_id, Audit.target == run.id, Audit.action == CONFIRMED)
    )
    found = session.execute(query).first()
    return None if found is None else (found[0], found[1])


# --- stages and attempts ---


def stages_of(session: Session, run_id: str) -> list[Stage]:
    """The run's stages in order, fresh."""
    query = select(Stage).where(Stage.run_id == run_id).order_by(Stage.position)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def stages_of_runs(session: Session, run_ids: Collection[str]) -> list[Stage]:
    query = select(Stage).where(Stage.run_id.in_(run_ids)).order_by(Stage.position)
    return list(session.scalars(query))


def run_of_stage(session: Session, stage_id: str) -> str | None:
    return session.scalar(select(Stage.run_id).where(Stage.id == stage_id))


def attempts_of(session: Session, run_id: str) -> list[Attempt]:
    return list(session.scalars(select(Attempt).where(Attempt.run_id == run_id).order_by(Attempt.epoch)))


def attempt_at(session: Session, stage_id: str, epoch: int) -> Attempt | None:
    query = select(Attempt).where(Attempt.stage_id == stage_id, Attempt.epoch == epoch)
    return session.scalar(query.execution_options(populate_existing=True))


def outputs_of_stages(session: Session, stage_ids: Collection[str]) -> list[StageArtifact]:
    query = select(StageArtifact).where(StageArtifact.stage_id.in_(stage_ids)).order_by(StageArtifact.path)
    return list(session.scalars(query))


def finished_twins(session: Session, project_id: str, fingerprint: str) -> list[Stage]:
    """Finished stages of the project with this fingerprint, newest first."""
    query = (
        select(Stage)
        .join(Run, Run.id == Stage.run_id)
        .where(
            Run.project_id == project_id,
            Stage.fingerprint == fingerprint,
            Stage.state.in_([state.value for state in STAGE_DONE]),
        )
        .order_by(Stage.finished_at.desc())
        .limit(MAX_TWINS)
    )
    return list(session.scalars(query))


def copy_outputs(session: Session, source: Sequence[StageArtifact], target: Stage) -> None:
    now = datetime.now(UTC)
    session.add_all(
        StageArtifact(
            stage_id=target.id,
            path=output.path,
            digest=output.digest,
            size_bytes=output.size_bytes,
            kind=output.kind,
            epoch=target.epoch,
            created_at=now,
        )
        for output in source
    )


def ask_for_checkpoint(session: Session, run_id: str) -> int:
    """Mark the running stages of a run; the number of them. One guarded UPDATE, so no row is locked before."""
    running = (StageState.RUNNING.value, StageState.UNREACHABLE.value)
    asked = session.scalars(
        update(Stage)
        .where(Stage.run_id == run_id, Stage.state.in_(running))
        .values(checkpoint_now=True)
        .returning(Stage.id)
    )
    return len(asked.all())


def add_hint(session: Session, stage_id: str) -> None:
    """An outbox row: after the commit somebody tells the workers that this stage is queued."""
    session.add(Outbox(stage_id=stage_id, created_at=datetime.now(UTC)))


def clock(session: Session) -> float:
    """The database's clock."""
    return session.execute(select(database_now())).scalar_one()


# --- events and metrics ---


def events_after(session: Session, run_id: str, after: int, limit: int) -> list[Event]:
    query = select(Event).where(Event.run_id == run_id, Event.seq > after).order_by(Event.seq).limit(limit)
    return list(session.scalars(query))


def metric_points(
    session: Session, series: Sequence[tuple[str, str]], max_points: int
) -> list[tuple[str, str, int, float]]:
    """(stage, name, step, value) of these (run id, stage) pairs, thinned to `max_points` a series.

    Of a step that was measured twice (an attempt was resumed from before it) the newest value counts. The
    last point of a series always stays.
    """
    if not series:
        return []
    pairs: list[ColumnElement[bool]] = [
        and_(Metric.run_id == run_id, Metric.stage == stage) for run_id, stage in series
    ]
    key = (Metric.run_id, Metric.stage, Metric.name)
    newest = (
        select(
            *key,
            Metric.step,
            Metric.value,
            func.row_number()
            .over(partition_by=(*key, Metric.step), order_by=(Metric.epoch.desc(), Metric.id.desc()))
            .label("age"),
        )
        .where(or_(*pairs))
        .subquery()
    )
    of_series = (newest.c.run_id, newest.c.stage, newest.c.name)
    counted = (
        select(
            newest,
            func.row_number().over(partition_by=of_series, order_by=newest.c.step).label("place"),
            func.count().over(partition_by=of_series).label("num_points"),
        )
        .where(newest.c.age == 1)
        .subquery()
    )
    stride = 1 + (counted.c.num_points - 1) // max_points
    query = (
        select(counted.c.stage, counted.c.name, counted.c.step, counted.c.value)
        .where((counted.c.num_points - counted.c.place) % stride == 0)
        .order_by(counted.c.stage, counted.c.name, counted.c.step)
    )
    return [(stage, name, step, value) for stage, name, step, value in session.execute(query)]


def is_done(stage: Stage) -> bool:
    return StageState(stage.state) in STAGE_DONE
