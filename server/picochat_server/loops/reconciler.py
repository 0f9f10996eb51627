"""Queued stages that nobody seems to know of are hinted again: a flushed broker delays work and loses none."""

from sqlalchemy.orm import Session, sessionmaker

from picochat_server.db import transaction
from picochat_server.leases import repository
from picochat_server.runs.repository import add_hint


def reconcile(sessions: sessionmaker[Session], rehint_seconds: float) -> int:
    """Write an outbox row for each stage that has been queued, unclaimed, for `rehint_seconds`."""
    with transaction(sessions) as session:
        forgotten = repository.forgotten_stages(session, rehint_seconds)
        for stage_id in forgotten:
            add_hint(session, stage_id)
        if forgotten:
            repository.mark_hinted(session, forgotten)
    return len(forgotten)
