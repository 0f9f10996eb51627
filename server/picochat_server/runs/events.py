"""Write a run's events under its own gapless sequence."""

from datetime import UTC, datetime
from typing import Any

from picochat_contract.events import EventType
from sqlalchemy.orm import Session

from picochat_server.models import Event, Run


def append(
    session: Session,
    run: Run,
    event_type: EventType,
    stage: str | None,
    epoch: int | None,
    data: dict[str, Any],
    *,
    time: datetime | None = None,
) -> None:
    """Add an event under the run's next number; the caller holds the lock on the run's row."""
    run.event_seq += 1
    session.add(
        Event(
            run_id=run.id,
            seq=run.event_seq,
            time=time or datetime.now(UTC),
            type=event_type.value,
            stage=str(stage) if stage else None,
            epoch=epoch,
            data=data,
        )
    )
