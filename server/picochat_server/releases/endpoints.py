"""Routes of the releases."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from picochat_contract.api import API, Page, ReleaseIn, ReleaseOut
from picochat_contract.ids import ID_PATTERN

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.gates.service import hash_ahead
from picochat_server.releases import service

WAS_THERE: dict[int | str, dict[str, Any]] = {
    200: {"model": ReleaseOut, "description": "The newest version of this name is this run already"}
}

router = APIRouter(prefix=API, tags=["releases"])


@router.post("/releases", status_code=201, responses=WAS_THERE)
def create_release(
    request: Request,
    response: Response,
    session: SessionDep,
    principal: Annotated[Principal, Depends(require("runs:write"))],
    body: ReleaseIn,
) -> ReleaseOut:
    """Give a run's checkpoint the next version of a name; 409 `gate_not_passed` unless it is approved."""
    state = request.app.state
    hash_ahead(state.read_sessions, state.store, principal.project_id, body.run)
    out, is_new = service.release(session, state.store, state.settings, principal, body)
    response.status_code = 201 if is_new else 200
    return out


@router.get("/releases")
def get_releases(
    session: SessionDep,
    principal: Annotated[Principal, Depends(require("runs:read"))],
    after: Annotated[str | None, Query(pattern=ID_PATTERN.pattern)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> Page[ReleaseOut]:
    """The project's releases, newest first."""
    return service.list_releases(session, principal.project_id, after, limit)
