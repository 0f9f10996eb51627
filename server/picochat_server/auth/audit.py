"""The audit trail: one row for each thing that somebody did. Rows are only ever appended."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from picochat_server.auth.principal import Principal
from picochat_server.models import Audit


def record(session: Session, principal: Principal, action: str, target: str, **data: Any) -> None:
    """Note that a key did `action` (such as `run.submit`) to `target`, in the caller's transaction."""
    session.add(
        Audit(
            project_id=principal.project_id,
            time=datetime.now(UTC),
            actor=principal.key_id,
            action=action,
            target=target,
            data=data,
        )
    )
