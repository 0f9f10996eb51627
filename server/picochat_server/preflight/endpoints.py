"""Routes of what was found before training: preflight and honesty."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from picochat_contract.api import API
from picochat_contract.api_data import HonestyOut, PreflightOut

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.preflight import service

router = APIRouter(prefix=API, tags=["preflight"])
Reader = Annotated[Principal, Depends(require("runs:read"))]


@router.get("/runs/{run}/preflight")
def get_preflight(session: SessionDep, principal: Reader, run: str) -> PreflightOut:
    """The server's preflight report: what was measured of data and plan, what blocks, what would fix it."""
    return service.preflight_out(session, principal.project_id, run)


@router.get("/runs/{run}/honesty")
def get_honesty(request: Request, session: SessionDep, principal: Reader, run: str) -> HonestyOut:
    """The run's honesty report, and the audit of what was really trained on once there is one."""
    return service.honesty_out(session, request.app.state.store, principal.project_id, run)
