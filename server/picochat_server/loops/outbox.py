"""Publish hints after the commit that made them. A hint is a stage id; losing or repeating one does no harm."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Protocol

from celery import Celery
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session, sessionmaker

from picochat_server.db import transaction
from picochat_server.models import Outbox

logger = logging.getLogger(__name__)
TASK = "picochat.run_stage"
BATCH = 200
KEEP_PUBLISHED = timedelta(hours=1)
BROKER_TIMEOUT_SECONDS = 5


class Hints(Protocol):
    """Where hints go."""

    def send(self, stage_id: str) -> None: ...


class CeleryHints:
    """Celery with a broker only: no result backend, no beat."""

    def __init__(self, broker_url: str, queue: str) -> None:
        self._queue = queue
        self._celery = Celery("picochat-server", broker=broker_url)
        self._celery.conf.update(
            task_ignore_result=True,
            broker_connection_timeout=BROKER_TIMEOUT_SECONDS,
            broker_transport_options={
                "socket_timeout": BROKER_TIMEOUT_SECONDS,
                "socket_connect_timeout": BROKER_TIMEOUT_SECONDS,
            },
        )

    def send(self, stage_id: str) -> None:
        self._celery.send_task(TASK, args=[stage_id], queue=self._queue, retry=False, ignore_result=True)

    def close(self) -> None:
        self._celery.close()


class NoHints:
    """Without a broker workers poll: there is nobody to tell."""

    def send(self, stage_id: str) -> None:
        return None


def publish(sessions: sessionmaker[Session], hints: Hints) -> int:
    """Send every hint that was not sent yet; a failure leaves the rest for the next round."""
    waiting = _waiting(sessions)
    sent: list[int] = []
    try:
        for row_id, stage_id in waiting:
            hints.send(stage_id)  # outside any transaction: a slow broker holds no row
            sent.append(row_id)
    finally:
        if sent:
            _mark_published(sessions, sent)
    return len(sent)


def forget_published(sessions: sessionmaker[Session]) -> None:
    """Drop rows that were published long ago."""
    before = datetime.now(UTC) - KEEP_PUBLISHED
    with transaction(sessions) as session:
        session.execute(delete(Outbox).where(Outbox.published_at < before))


def _waiting(sessions: sessionmaker[Session]) -> list[tuple[int, str]]:
    query = select(Outbox.id, Outbox.stage_id).where(Outbox.published_at.is_(None))
    with transaction(sessions) as session:
        rows = session.execute(query.order_by(Outbox.id).limit(BATCH))
        return [(row_id, stage_id) for row_id, stage_id in rows]


def _mark_published(sessions: sessionmaker[Session], row_ids: list[int]) -> None:
    with transaction(sessions) as session:
        session.execute(update(Outbox).where(Outbox.id.in_(row_ids)).values(published_at=datetime.now(UTC)))
