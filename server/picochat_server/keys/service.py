"""Make, list and revoke keys of a project; each change leaves an audit row."""

from datetime import UTC, datetime, timedelta

from picochat_contract.api import KeyIn, KeyOut, Page
from sqlalchemy.orm import Session

from picochat_server.auth import audit, repository
from picochat_server.auth.principal import Principal
from picochat_server.auth.service import make_key
from picochat_server.models import ApiKey
from picochat_server.problems import not_found


def create(session: Session, principal: Principal, body: KeyIn) -> KeyOut:
    days = body.expires_in_days
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    key, secret = make_key(session, principal.project_id, body.name, body.scopes, expires_at)
    audit.record(session, principal, "key.create", key.id, name=key.name, scopes=key.scopes)
    return _out(key, secret=secret)


def list_keys(session: Session, principal: Principal, *, after: str | None, limit: int) -> Page[KeyOut]:
    rows = repository.keys_after(session, principal.project_id, after, limit + 1)
    shown = rows[:limit]
    has_more = len(rows) > limit
    return Page(data=[_out(key) for key in shown], has_more=has_more, next=shown[-1].id if has_more else None)


def revoke(session: Session, principal: Principal, key_id: str) -> KeyOut:
    if not repository.revoke(session, principal.project_id, key_id, datetime.now(UTC)):
        raise not_found("key", key_id[:80])
    audit.record(session, principal, "key.revoke", key_id)
    key = repository.key_by_id(session, key_id)
    assert key is not None, "revoke() has found it"
    return _out(key)


def _out(key: ApiKey, *, secret: str | None = None) -> KeyOut:
    return KeyOut.model_validate(
        {
            "id": key.id,
            "name": key.name,
            "scopes": key.scopes,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
            "secret": secret,
        }
    )
