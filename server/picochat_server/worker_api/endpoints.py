"""/api/v1/worker: claim, heartbeat, events, checkpoint, finish (scope `worker`); and the list of workers."""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from picochat_contract.api import (
    API,
    PLAIN,
    CheckpointIn,
    Claim,
    ClaimIn,
    EventsIn,
    EventsOut,
    FinishIn,
    HeartbeatIn,
    HeartbeatOut,
    Page,
    WorkerOut,
)

from picochat_server.auth.deps import SessionDep, WorkerSessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.leases import finish, reports, service

router = APIRouter(prefix=API, tags=["workers"])
WorkerKey = Annotated[Principal, Depends(require("worker"))]
Reader = Annotated[Principal, Depends(require("runs:read"))]


@router.post(
    "/worker/claims", response_model=Claim, responses={204: {"description": "There is nothing to do."}}
)
def claim(
    request: Request, session: WorkerSessionDep, principal: WorkerKey, body: ClaimIn
) -> Claim | Response:
    """Claim the oldest queued stage, or the one named by a hint. Of equal hints one makes an attempt."""
    state = request.app.state
    has_settled = time.monotonic() - state.started_at >= state.settings.lease_seconds
    found = service.claim(session, state.settings, principal, body, take_over=has_settled)
    return found or Response(status_code=204)


@router.post("/worker/attempts/{attempt}/heartbeat")
def heartbeat(
    request: Request, session: WorkerSessionDep, principal: WorkerKey, attempt: str, body: HeartbeatIn
) -> HeartbeatOut:
    """Extend the lease; the answer says whether to go on."""
    return service.heartbeat(session, request.app.state.settings, attempt, body)


@router.post("/worker/attempts/{attempt}/events")
def record_events(session: WorkerSessionDep, principal: WorkerKey, attempt: str, body: EventsIn) -> EventsOut:
    """Store a batch of events; repeats are dropped by their number."""
    return reports.record_events(session, attempt, body)


@router.post("/worker/attempts/{attempt}/checkpoint", status_code=204)
def record_checkpoint(
    session: WorkerSessionDep, principal: WorkerKey, attempt: str, body: CheckpointIn
) -> None:
    """Make uploaded checkpoint files the point from which a later attempt goes on."""
    reports.record_checkpoint(session, attempt, body)


@router.post("/worker/attempts/{attempt}/finish", status_code=204)
def finish_attempt(
    request: Request, session: WorkerSessionDep, principal: WorkerKey, attempt: str, body: FinishIn
) -> None:
    """End the attempt. Repeating it changes nothing."""
    state = request.app.state
    finish.prepare(state.worker_read_sessions, state.store, principal.project_id, attempt, body)
    finish.finish(session, state.store, state.settings, attempt, body)


@router.get("/workers")
def list_workers(
    session: SessionDep,
    principal: Reader,
    after: Annotated[str | None, Query(pattern=PLAIN)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Page[WorkerOut]:
    """List the workers that have asked for work, by name."""
    return service.list_workers(session, principal.project_id, after, limit)
