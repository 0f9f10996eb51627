"""The only functions that change a state: the contract's table, a guarded UPDATE, and a STATE event.

The caller holds the lock on the run's row (`repository.lock_run`), which also makes its event numbers gapless.
"""

from datetime import UTC, datetime
from typing import Any

from picochat_contract.errors import Code
from picochat_contract.events import EventType
from picochat_contract.states import (
    ATTEMPT_TRANSITIONS,
    RUN_FINAL,
    RUN_TRANSITIONS,
    STAGE_FINAL,
    STAGE_TRANSITIONS,
    AttemptState,
    Cause,
    RunState,
    StageState,
    move,
)
from sqlalchemy import update
from sqlalchemy.orm import Session

from picochat_server.models import Attempt, Run, Stage
from picochat_server.problems import ApiProblem
from picochat_server.runs import events


def move_run(session: Session, run: Run, new: RunState, *, message: str | None = None) -> None:
    old = RunState(run.state)
    values: dict[str, Any] = {"state": move(RUN_TRANSITIONS, old, new).value}
    if new is RunState.RUNNING:
        values["started_at"] = datetime.now(UTC)
    if new in RUN_FINAL:
        values["finished_at"] = datetime.now(UTC)
    if message is not None:
        values["message"] = message
    _guarded(session, Run, run.id, old.value, values)
    change = _change("run", run.id, None, old, new, cause=None, message=message)
    events.append(session, run, EventType.STATE, None, None, change)


def move_stage(
    session: Session,
    run: Run,
    stage: Stage,
    new: StageState,
    *,
    cause: Cause | None = None,
    message: str | None = None,
    **values: Any,
) -> None:
    """Move a stage; `values` are further columns of the same UPDATE."""
    old = StageState(stage.state)
    values["state"] = move(STAGE_TRANSITIONS, old, new).value
    values["message"] = message
    if new in STAGE_FINAL:
        values["finished_at"] = datetime.now(UTC)
    _guarded(session, Stage, stage.id, old.value, values)
    note_stage_move(session, run, stage, old, new, cause=cause, message=message)


def note_stage_move(
    session: Session,
    run: Run,
    stage: Stage,
    old: StageState,
    new: StageState,
    *,
    epoch: int | None = None,
    cause: Cause | None = None,
    message: str | None = None,
) -> None:
    """Write the event of a stage's move. Alone it is for the claim, whose own statement does the moving."""
    change = _change("stage", stage.id, stage.name, old, new, cause=cause, message=message)
    events.append(session, run, EventType.STATE, stage.name, stage.epoch if epoch is None else epoch, change)


def move_attempt(
    session: Session,
    run: Run,
    attempt: Attempt,
    stage_name: str,
    new: AttemptState,
    *,
    cause: Cause | None = None,
    message: str | None = None,
    exit_code: int | None = None,
) -> None:
    old = AttemptState(attempt.state)
    values: dict[str, Any] = {"state": move(ATTEMPT_TRANSITIONS, old, new).value}
    if not ATTEMPT_TRANSITIONS[new]:
        values |= {
            "finished_at": datetime.now(UTC),
            "cause": cause.value if cause else None,
            "message": message,
            "exit_code": exit_code,
        }
    _guarded(session, Attempt, attempt.id, old.value, values)
    note_attempt(session, run, attempt, stage_name, old, new, cause=cause, message=message)


def note_attempt(
    session: Session,
    run: Run,
    attempt: Attempt,
    stage_name: str,
    old: AttemptState | None,
    new: AttemptState,
    *,
    cause: Cause | None = None,
    message: str | None = None,
) -> None:
    change = _change("attempt", attempt.id, stage_name, old, new, cause=cause, message=message)
    events.append(session, run, EventType.STATE, stage_name, attempt.epoch, change)


def _guarded(
    session: Session, model: type[Run | Stage | Attempt], row_id: str, old: str, values: dict[str, Any]
) -> None:
    """UPDATE ... WHERE state = old: a row that somebody else has moved is an error, never overwritten."""
    statement = (
        update(model).where(model.id == row_id, model.state == old).values(**values).returning(model.id)
    )
    if session.scalar(statement.execution_options(synchronize_session="auto")) is None:
        raise ApiProblem(
            409,
            Code.ILLEGAL_TRANSITION,
            f"{row_id} is not {old} any more: another request changed it first; read it again",
        )


def _change(
    kind: str,
    row_id: str,
    stage: str | None,
    old: RunState | StageState | AttemptState | None,
    new: RunState | StageState | AttemptState,
    *,
    cause: Cause | None,
    message: str | None,
) -> dict[str, Any]:
    change = {
        "kind": kind,
        "id": row_id,
        "stage": stage,
        "from": old.value if old else None,
        "to": new.value,
        "cause": cause.value if cause else None,
        "message": message,
    }
    return {key: value for key, value in change.items() if value is not None or key == "from"}
