"""/api/v1/runs: submit, list, show, cancel, events, metrics; and the JSON Schema of a run spec."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Request
from picochat_contract import spec
from picochat_contract.api import API, MAX_INT, EventOut, MetricsOut, Page, RunOut, RunSummary
from picochat_contract.states import RunState

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.runs import service

router = APIRouter(prefix=API, tags=["runs"])
Reader = Annotated[Principal, Depends(require("runs:read"))]
Writer = Annotated[Principal, Depends(require("runs:write"))]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.post("/runs", status_code=201)
def submit_run(
    request: Request,
    session: SessionDep,
    principal: Writer,
    body: Annotated[dict[str, Any], Body(description="A run spec; see GET /api/v1/schema/run-spec.")],
    idempotency_key: Annotated[str | None, Header()] = None,
) -> RunOut:
    """Submit a run. With an `Idempotency-Key` a repeat gives the same run; another spec under it is refused."""
    state = request.app.state
    return service.submit(session, state.store, state.settings, principal, body, idempotency_key)


@router.get("/runs")
def list_runs(
    session: SessionDep,
    principal: Reader,
    after: str | None = None,
    limit: Limit = 50,
    state: RunState | None = None,
) -> Page[RunSummary]:
    """List runs, newest first."""
    return service.list_runs(session, principal.project_id, after, limit, state)


@router.get("/runs/{run}")
def show_run(session: SessionDep, principal: Reader, run: str) -> RunOut:
    """Show a run with its stages and their attempts."""
    return service.run_out(session, principal.project_id, run)


@router.post("/runs/{run}/cancel", status_code=202)
def cancel_run(session: SessionDep, principal: Writer, run: str) -> RunOut:
    """Ask for the end of a run; its running stages checkpoint first. Doing it again changes nothing."""
    return service.cancel(session, principal, run)


@router.post("/runs/{run}/checkpoint", status_code=202)
def checkpoint_run(session: SessionDep, principal: Writer, run: str) -> RunOut:
    """Ask the running stages for a checkpoint without stopping them; heard at the next heartbeat."""
    return service.request_checkpoint(session, principal, run)


@router.get("/runs/{run}/events")
def list_events(
    session: SessionDep,
    principal: Reader,
    run: str,
    after: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
    limit: Limit = 100,
) -> Page[EventOut]:
    """List events, oldest first, in the run's own gapless sequence."""
    return service.list_events(session, principal.project_id, run, after, limit)


@router.get("/runs/{run}/metrics")
def run_metrics(session: SessionDep, principal: Reader, run: str) -> MetricsOut:
    """Metric series for curves, at most 500 points each."""
    return service.metrics_out(session, principal.project_id, run)


@router.get("/schema/run-spec")
def run_spec_schema() -> dict[str, Any]:
    """JSON Schema of a run spec, for editors. Open: it holds nothing of anybody."""
    return spec.json_schema()
