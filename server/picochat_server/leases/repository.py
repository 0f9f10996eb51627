"""SQL of the lease core. Lease times are the database's clock; no host's clock decides who holds a stage."""

from datetime import UTC, datetime
from typing import NamedTuple

from picochat_contract.api import ClaimIn
from picochat_contract.ids import is_id, new_id
from picochat_contract.states import DesiredState, StageState
from sqlalchemy import ColumnElement, and_, exists, false, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from picochat_server.db import database_now
from picochat_server.models import Attempt, Outbox, Run, Stage, Worker

LIVE_STATES = (StageState.RUNNING.value, StageState.UNREACHABLE.value)
MAX_CANDIDATES = 20


class Taken(NamedTuple):
    epoch: int
    num_attempts: int


class Beat(NamedTuple):
    desired_state: str
    checkpoint_now: bool


def claimable(grace_seconds: float, *, take_over: bool) -> ColumnElement[bool]:
    """Queued; or, where `take_over` is allowed, running with lease and grace over."""
    expired = and_(Stage.state.in_(LIVE_STATES), Stage.lease_expires_at + grace_seconds < database_now())
    return and_(
        Stage.desired_state == DesiredState.RUNNING.value,
        Stage.num_attempts < Stage.max_attempts,
        or_(Stage.state == StageState.QUEUED.value, expired if take_over else false()),
    )


def candidates(
    session: Session, project_id: str, stage_id: str | None, is_claimable: ColumnElement[bool]
) -> list[tuple[str, str]]:
    """(run id, stage id) of what may be claimed, oldest run first; only a look, nothing is locked."""
    if stage_id is not None and not is_id(stage_id):
        return []  # a hint that is none
    query = (
        select(Stage.run_id, Stage.id)
        .join(Run, Run.id == Stage.run_id)
        .where(Run.project_id == project_id, is_claimable)
        .order_by(Run.created_at, Run.id, Stage.position)
        .limit(MAX_CANDIDATES)
    )
    if stage_id is not None:
        query = query.where(Stage.id == stage_id)
    return [(run_id, stage_id) for run_id, stage_id in session.execute(query)]


def take(
    session: Session, stage_id: str, token: str, lease_seconds: float, is_claimable: ColumnElement[bool]
) -> Taken | None:
    """The claim: one guarded statement. Of any number of rivals one gets a row back."""
    statement = (
        update(Stage)
        .where(Stage.id == stage_id, is_claimable)
        .values(
            state=StageState.RUNNING.value,
            lease_token=token,
            epoch=Stage.epoch + 1,
            num_attempts=Stage.num_attempts + 1,
            lease_expires_at=database_now() + lease_seconds,
            checkpoint_now=False,
            message=None,
        )
        .returning(Stage.epoch, Stage.num_attempts)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    return Taken(row.epoch, row.num_attempts) if row else None


def beat(
    session: Session, attempt_id: str, token: str, epoch: int, lease_seconds: float, step: int | None
) -> Beat | None:
    """Extend a live lease; None where the attempt does not hold its stage (any more)."""
    if not is_id(attempt_id):
        return None
    holder = (
        select(Attempt.stage_id).where(Attempt.id == attempt_id, Attempt.epoch == epoch).scalar_subquery()
    )
    values: dict[str, object] = {"lease_expires_at": database_now() + lease_seconds}
    if step is not None:
        values["step"] = step
    statement = (
        update(Stage)
        .where(
            Stage.id == holder,
            Stage.epoch == epoch,
            Stage.lease_token == token,
            Stage.state == StageState.RUNNING.value,
        )
        .values(**values)
        .returning(Stage.id, Stage.desired_state, Stage.checkpoint_now)
        .execution_options(synchronize_session=False)
    )
    row = session.execute(statement).one_or_none()
    if row is None:
        return None
    if row.checkpoint_now:  # told once
        session.execute(
            update(Stage)
            .where(Stage.id == row.id)
            .values(checkpoint_now=False)
            .execution_options(synchronize_session=False)
        )
    return Beat(row.desired_state, row.checkpoint_now)


def attempt_by_id(session: Session, attempt_id: str) -> Attempt | None:
    if not is_id(attempt_id):
        return None
    query = select(Attempt).where(Attempt.id == attempt_id)
    return session.scalar(query.execution_options(populate_existing=True))


def stage_by_id(session: Session, stage_id: str) -> Stage | None:
    query = select(Stage).where(Stage.id == stage_id)
    return session.scalar(query.execution_options(populate_existing=True))


def late_stages(session: Session, extra_seconds: float, states: tuple[str, ...]) -> list[tuple[str, str]]:
    """(run id, stage id) of stages whose lease has been over for `extra_seconds`."""
    query = (
        select(Stage.run_id, Stage.id)
        .where(Stage.state.in_(states), Stage.lease_expires_at + extra_seconds < database_now())
        .order_by(Stage.lease_expires_at)
    )
    return [(run_id, stage_id) for run_id, stage_id in session.execute(query)]


def lock_late_stage(session: Session, stage_id: str, extra_seconds: float, states: tuple[str, ...]) -> bool:
    """Lock the stage if it is still late: a heartbeat takes no lock on the run and may have come."""
    query = (
        select(Stage.id)
        .where(
            Stage.id == stage_id,
            Stage.state.in_(states),
            Stage.lease_expires_at + extra_seconds < database_now(),
        )
        .with_for_update()
    )
    return session.scalar(query) is not None


def forgotten_stages(session: Session, older_than_seconds: float) -> list[str]:
    """Queued stages that nobody was told about for a while. A hint that still waits to be sent is no telling."""
    waits = exists().where(Outbox.stage_id == Stage.id, Outbox.published_at.is_(None))
    query = select(Stage.id).where(
        Stage.state == StageState.QUEUED.value,
        Stage.queued_at + older_than_seconds < database_now(),
        ~waits,  # else a broker that is away for a day would find thousands of hints for one stage
    )
    return list(session.scalars(query))


def mark_hinted(session: Session, stage_ids: list[str]) -> None:
    session.execute(
        update(Stage)
        .where(Stage.id.in_(stage_ids), Stage.state == StageState.QUEUED.value)
        .values(queued_at=database_now())
        .execution_options(synchronize_session=False)
    )


# --- workers ---


def see_worker(session: Session, project_id: str, body: ClaimIn, attempt_id: str | None) -> None:
    """Note that a worker asked for work and what it got."""
    seen = {
        "host": body.host,
        "device": body.device,
        "last_seen_at": datetime.now(UTC),
        "attempt_id": attempt_id,
    }
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        insert(Worker)
        .values(id=new_id("worker"), project_id=project_id, name=body.worker, **seen)
        .on_conflict_do_update(index_elements=["project_id", "name"], set_=seen)
    )


def touch_worker(session: Session, attempt_id: str, *, ended: bool = False) -> None:
    """Note a sign of life of the worker that holds an attempt."""
    values: dict[str, object] = {"last_seen_at": datetime.now(UTC)}
    if ended:
        values["attempt_id"] = None
    session.execute(
        update(Worker)
        .where(Worker.attempt_id == attempt_id)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def workers_after(session: Session, project_id: str, after: str | None, limit: int) -> list[Worker]:
    query = select(Worker).where(Worker.project_id == project_id).order_by(Worker.name).limit(limit)
    if after is not None:
        query = query.where(Worker.name > after)
    return list(session.scalars(query))
