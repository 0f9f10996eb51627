"""Route of the gate: the run's signed report."""

from typing import Annotated

from fastapi import APIRouter, Depends
from picochat_contract.api import API, GateOut

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.gates import service

router = APIRouter(prefix=API, tags=["gates"])


@router.get("/runs/{run}/gate")
def get_gate(
    session: SessionDep, principal: Annotated[Principal, Depends(require("runs:read"))], run: str
) -> GateOut:
    """The newest verdict with every check: what was measured, against what, and what would fix it."""
    return service.gate_out(session, principal.project_id, run)
