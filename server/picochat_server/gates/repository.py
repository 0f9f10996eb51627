"""SQL of the gate reports."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from picochat_server.models import GateReportRow, Run


def latest(session: Session, run_id: str) -> GateReportRow | None:
    return session.scalars(
        select(GateReportRow)
        .where(GateReportRow.run_id == run_id)
        .order_by(GateReportRow.decided_at.desc(), GateReportRow.id.desc())
        .limit(1)
    ).first()


def by_id(session: Session, report_id: str) -> GateReportRow | None:
    return session.get(GateReportRow, report_id)


def run_of(session: Session, row: GateReportRow) -> Run:
    return session.scalars(select(Run).where(Run.id == row.run_id)).one()
