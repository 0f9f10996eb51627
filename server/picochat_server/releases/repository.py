"""SQL of the releases."""

import re

from picochat_contract.ids import is_id
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from picochat_server.models import GateReportRow, Release

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def newest(session: Session, project_id: str, name: str) -> Release | None:
    if not NAME.fullmatch(name):
        return None
    return session.scalars(
        select(Release)
        .where(Release.project_id == project_id, Release.name == name)
        .order_by(Release.version.desc())
        .limit(1)
    ).first()


def newest_of_run(session: Session, project_id: str, run_id: str) -> Release | None:
    if not is_id(run_id):
        return None
    return session.scalars(
        select(Release)
        .where(Release.project_id == project_id, Release.run_id == run_id)
        .order_by(Release.id.desc())
        .limit(1)
    ).first()


def next_version(session: Session, project_id: str, name: str) -> int:
    highest = session.scalar(
        select(func.max(Release.version)).where(Release.project_id == project_id, Release.name == name)
    )
    return (highest or 0) + 1


def releases_before(
    session: Session, project_id: str, after: str | None, limit: int
) -> list[tuple[Release, str]]:
    """Releases with their verdicts, newest first: ids are in order of time."""
    statement = (
        select(Release, GateReportRow.verdict)
        .join(GateReportRow, GateReportRow.id == Release.gate_report_id)
        .where(Release.project_id == project_id)
        .order_by(Release.id.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(Release.id < after)
    return [(release, verdict) for release, verdict in session.execute(statement)]
