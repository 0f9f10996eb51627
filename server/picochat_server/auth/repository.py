"""SQL of projects, keys and the audit trail."""

from datetime import datetime

from picochat_contract.ids import is_id
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from picochat_server.models import ApiKey, Project


def project_named(session: Session, name: str) -> Project | None:
    return session.scalar(select(Project).where(Project.name == name))


def lock_project(session: Session, project_id: str) -> None:
    """One release or dataset of a project at a time: versions are counted without a gap and without a clash.

    FOR NO KEY UPDATE: rows that refer to the project (runs, uploads, audit) go on being written meanwhile. A plain
    FOR UPDATE would hold them up while a checkpoint is hashed, and deadlock with a cancel of the same run.
    """
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))


def key_by_digest(session: Session, digest: str) -> ApiKey | None:
    return session.scalar(select(ApiKey).where(ApiKey.secret_sha256 == digest))


def key_by_id(session: Session, key_id: str) -> ApiKey | None:
    return session.get(ApiKey, key_id)


def count_keys(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(ApiKey)) or 0


def keys_after(session: Session, project_id: str, after: str | None, limit: int) -> list[ApiKey]:
    query = select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.id).limit(limit)
    if after:
        query = query.where(ApiKey.id > after)
    return list(session.scalars(query))


def revoke(session: Session, project_id: str, key_id: str, now: datetime) -> bool:
    """Mark a key as revoked; False if the project has no such key. A second call changes nothing."""
    if not is_id(key_id):
        return False
    found = session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, ApiKey.project_id == project_id))
    if found is None:
        return False
    session.execute(
        update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
    )
    return True
