"""Leases that ran out: late is `unreachable`, and after the grace the attempt is lost and its stage goes on."""

import logging

from picochat_contract.states import AttemptState, Cause, StageState
from sqlalchemy.orm import Session, sessionmaker

from picochat_server.artifacts.store import LocalStore
from picochat_server.db import transaction
from picochat_server.leases import repository
from picochat_server.leases.finish import end_attempt
from picochat_server.models import Attempt, Run, Stage
from picochat_server.runs import repository as runs
from picochat_server.runs.transitions import move_attempt, move_stage
from picochat_server.settings import Settings

logger = logging.getLogger(__name__)
RUNNING = (StageState.RUNNING.value,)


def reap(sessions: sessionmaker[Session], store: LocalStore, settings: Settings) -> int:
    """One round over all late leases; returns how many stages changed. One transaction for each."""
    changed = 0
    for run_id, stage_id in _late(sessions, settings.grace_seconds, repository.LIVE_STATES):
        changed += _lose(sessions, store, settings, run_id, stage_id)
    for run_id, stage_id in _late(sessions, 0.0, RUNNING):
        changed += _doubt(sessions, run_id, stage_id)
    return changed


def _late(
    sessions: sessionmaker[Session], extra_seconds: float, states: tuple[str, ...]
) -> list[tuple[str, str]]:
    with transaction(sessions) as session:
        return repository.late_stages(session, extra_seconds, states)


def _lose(
    sessions: sessionmaker[Session], store: LocalStore, settings: Settings, run_id: str, stage_id: str
) -> bool:
    with transaction(sessions) as session:
        found = _lock_late(session, run_id, stage_id, settings.grace_seconds, repository.LIVE_STATES)
        if found is None:
            return False
        run, stage, attempt = found
        message = f"no heartbeat from worker {attempt.worker} until lease and grace were over"
        end_attempt(
            session,
            store,
            settings,
            run,
            stage,
            attempt,
            AttemptState.LOST,
            cause=Cause.LOST,
            message=message,
        )
    logger.warning("attempt lost", extra={"run": run_id, "stage": stage_id, "attempt": attempt.id})
    return True


def _doubt(sessions: sessionmaker[Session], run_id: str, stage_id: str) -> bool:
    """A late lease says nothing about the worker yet: it may come back within the grace."""
    with transaction(sessions) as session:
        found = _lock_late(session, run_id, stage_id, 0.0, RUNNING)
        if found is None:
            return False
        run, stage, attempt = found
        move_stage(session, run, stage, StageState.UNREACHABLE, message="its worker's heartbeat is late")
        move_attempt(session, run, attempt, stage.name, AttemptState.UNREACHABLE)
    return True


def _lock_late(
    session: Session, run_id: str, stage_id: str, extra_seconds: float, states: tuple[str, ...]
) -> tuple[Run, Stage, Attempt] | None:
    """Lock and look again: a heartbeat, a finish or another server may have come first."""
    run = runs.lock_run(session, run_id)
    if run is None or not repository.lock_late_stage(session, stage_id, extra_seconds, states):
        return None
    stage = repository.stage_by_id(session, stage_id)
    attempt = runs.attempt_at(session, stage_id, stage.epoch) if stage else None
    assert stage is not None, "stages are never deleted"
    assert attempt is not None, "a running stage has an attempt"
    return run, stage, attempt
