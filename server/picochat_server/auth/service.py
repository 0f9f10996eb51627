"""Make keys and find the principal behind one. A secret is shown once; only its sha256 is stored."""

import secrets
from collections.abc import Collection
from datetime import UTC, datetime

from picochat_contract.canonical import sha256_hex
from picochat_contract.ids import new_id
from sqlalchemy.orm import Session

from picochat_server.auth import repository
from picochat_server.auth.principal import Principal
from picochat_server.models import ApiKey, Project

KEY_PREFIX = "pk_"
SECRET_BYTES = 32


def ensure_project(session: Session, name: str) -> Project:
    """The project called `name`, made if it is not there."""
    project = repository.project_named(session, name)
    if project is None:
        project = Project(id=new_id("project"), name=name, created_at=datetime.now(UTC))
        session.add(project)
        session.flush()
    return project


def make_key(
    session: Session,
    project_id: str,
    name: str,
    scopes: Collection[str],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Add a key; return it with its secret, which cannot be read again."""
    secret = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(
        id=new_id("api_key"),
        project_id=project_id,
        name=name,
        secret_sha256=sha256_hex(secret),
        scopes=sorted(set(scopes)),
        created_at=datetime.now(UTC),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key, secret


def principal_of(session: Session, secret: str) -> Principal | None:
    """The principal of a secret; None if it is unknown, revoked or expired."""
    if not secret.startswith(KEY_PREFIX):
        return None
    return _principal(repository.key_by_digest(session, sha256_hex(secret)))


def principal_of_key(session: Session, key_id: str) -> Principal | None:
    """The same for the id of a key, as a signed browser session carries it."""
    return _principal(repository.key_by_id(session, key_id))


def _principal(key: ApiKey | None) -> Principal | None:
    if key is None or key.revoked_at is not None:
        return None
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return None
    return Principal(key_id=key.id, project_id=key.project_id, scopes=frozenset(key.scopes))
