"""SQL of the pages: what no other part reads (newest log lines, samples)."""

from picochat_contract.events import EventType
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from picochat_server.models import ApiKey, Event, Project, Run, Stage


def names_of(session: Session, key_id: str, project_id: str) -> tuple[str, str]:
    """Name of the key and of the project."""
    key, project = session.get(ApiKey, key_id), session.get(Project, project_id)
    return key.name if key else key_id, project.name if project else project_id


def run_of_stage(session: Session, project_id: str, stage_id: str) -> str | None:
    """Id of the run that a stage belongs to; None if it is not this project's."""
    return session.scalar(
        select(Stage.run_id)
        .join(Run, Run.id == Stage.run_id)
        .where(Stage.id == stage_id, Run.project_id == project_id)
    )


def log_tail(session: Session, run_id: str, limit: int) -> tuple[list[Event], int]:
    """The newest LOG events, oldest first, and how many there are in all."""
    wanted = (Event.run_id == run_id, Event.type == EventType.LOG.value)
    newest = session.scalars(select(Event).where(*wanted).order_by(Event.seq.desc()).limit(limit))
    total = session.scalar(select(func.count()).select_from(Event).where(*wanted)) or 0
    return list(newest)[::-1], total


def samples(session: Session, run_id: str, stage: str, limit: int) -> list[Event]:
    """The newest SAMPLE events of a stage, newest first."""
    return list(
        session.scalars(
            select(Event)
            .where(Event.run_id == run_id, Event.stage == stage, Event.type == EventType.SAMPLE.value)
            .order_by(Event.seq.desc())
            .limit(limit)
        )
    )


def newest_runs(session: Session, project_id: str, limit: int) -> list[Run]:
    """The project's newest runs, newest first."""
    newest = select(Run).where(Run.project_id == project_id).order_by(Run.created_at.desc(), Run.id.desc())
    return list(session.scalars(newest.limit(limit)))


def last_seq(session: Session, project_id: str, run_id: str) -> int | None:
    """Number of the run's newest event; None if the project has no such run."""
    return session.scalar(select(Run.event_seq).where(Run.id == run_id, Run.project_id == project_id))
