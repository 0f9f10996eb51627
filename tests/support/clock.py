"""Move a lease into the past by editing the row: the database's clock decides, and nobody waits for it."""

from typing import Any

from fastapi import FastAPI
from picochat_server.db import database_now, transaction
from picochat_server.loops.reaper import reap
from picochat_server.models import Stage
from sqlalchemy import update


def expire(app: FastAPI, stage_id: str, seconds_ago: float) -> None:
    """Make the lease of a stage end `seconds_ago`."""
    with transaction(app.state.sessions) as session:
        session.execute(
            update(Stage)
            .where(Stage.id == stage_id)
            .values(lease_expires_at=database_now() - seconds_ago)
            .execution_options(synchronize_session=False)
        )


def reap_now(app: FastAPI) -> int:
    """One round of the reaper."""
    state: Any = app.state
    return reap(state.sessions, state.store, state.settings)
