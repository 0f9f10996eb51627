"""SQL of the preflight reports."""

from sqlalchemy.orm import Session

from picochat_server.models import PreflightReportRow


def of_run(session: Session, run_id: str) -> PreflightReportRow | None:
    return session.get(PreflightReportRow, run_id)
