"""POST, GET and DELETE /api/v1/keys: only for admin keys, only within their own project."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from picochat_contract.api import API, KeyIn, KeyOut, Page
from picochat_contract.ids import ID_PATTERN

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import ADMIN, Principal
from picochat_server.keys import service

router = APIRouter(prefix=f"{API}/keys", tags=["keys"])
Admin = Annotated[Principal, Depends(require(ADMIN))]


@router.post("", status_code=201)
def create_key(session: SessionDep, principal: Admin, body: KeyIn) -> KeyOut:
    """Make a key. The answer carries its secret, which is not shown again."""
    return service.create(session, principal, body)


@router.get("")
def list_keys(
    session: SessionDep,
    principal: Admin,
    after: Annotated[str | None, Query(pattern=ID_PATTERN.pattern)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[KeyOut]:
    """List the project's keys, oldest first, revoked ones included."""
    return service.list_keys(session, principal, after=after, limit=limit)


@router.delete("/{key}")
def revoke_key(session: SessionDep, principal: Admin, key: str) -> KeyOut:
    """Revoke a key at once; doing it again changes nothing."""
    return service.revoke(session, principal, key)
