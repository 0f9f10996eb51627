"""Server-sent events of a run: the same rows as the event list, read in short sessions between sleeps.

The stream resumes after `Last-Event-ID`, sends a comment when it is idle, and ends after the final event, or
when the server shuts down; the client then comes back with the last id it saw. No stream holds a connection.
"""

import threading
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from picochat_contract.api import API, MAX_INT, EventOut
from picochat_contract.errors import Code
from picochat_contract.states import RUN_FINAL, RunState
from sqlalchemy.orm import Session, sessionmaker

from picochat_server.auth.deps import require
from picochat_server.auth.principal import Principal
from picochat_server.db import transaction
from picochat_server.problems import ApiProblem, not_found
from picochat_server.runs import repository, views

router = APIRouter(prefix=API, tags=["runs"])
POLL_SECONDS = 0.5
BATCH = 500
RETRY_MS = 1000


def existing_run(
    request: Request, principal: Annotated[Principal, Depends(require("runs:read"))], run: str
) -> str:
    """Check the run before the stream begins, in a session that is closed at once: afterwards it is too late."""
    with transaction(request.app.state.read_sessions) as session:
        if repository.run_of_project(session, principal.project_id, run) is None:
            raise not_found("run", run[:80])
    return run


def start_after(
    after: Annotated[int, Query(ge=0, le=MAX_INT)] = 0, last_event_id: Annotated[str | None, Header()] = None
) -> int:
    """Where to go on: `Last-Event-ID`, as browsers send it, before `after`."""
    if not last_event_id:
        return after
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 16):
        raise ApiProblem(
            422,
            Code.INVALID_REQUEST,
            f"Last-Event-ID: expected the number of an event, got {last_event_id[:40]!r}",
            param="Last-Event-ID",
        )
    return int(last_event_id)


@router.get("/runs/{run}/events/stream", response_class=EventSourceResponse)
async def stream_events(
    request: Request,
    run: Annotated[str, Depends(existing_run)],
    after: Annotated[int, Depends(start_after)],
) -> AsyncIterator[ServerSentEvent]:
    """Follow a run. Each event's `id` is its sequence number, `event` its type, `data` an EventOut."""
    state = request.app.state
    yield ServerSentEvent(comment="stream", retry=RETRY_MS)
    async for event in follow(state.read_sessions, state.closing, run, after):
        yield ServerSentEvent(id=str(event.seq), event=event.type.value, raw_data=event.model_dump_json())


async def follow(
    sessions: sessionmaker[Session], closing: threading.Event, run_id: str, after: int
) -> AsyncIterator[EventOut]:
    """Events after `after` until the run has ended and its last event was given, or the server closes."""
    while not closing.is_set():
        events, is_over = await to_thread.run_sync(read_batch, sessions, run_id, after)
        for event in events:
            yield event
            after = event.seq
        if is_over:
            return
        if len(events) < BATCH:
            await anyio.sleep(POLL_SECONDS)


def read_batch(sessions: sessionmaker[Session], run_id: str, after: int) -> tuple[list[EventOut], bool]:
    """The next events, and whether nothing can follow them."""
    with transaction(sessions) as session:
        run = repository.run_by_id(session, run_id)
        if run is None:
            return [], True
        # The run was read first: events that a final run has not shown yet cannot be missed below.
        last = run.event_seq if RunState(run.state) in RUN_FINAL else None
        events = [views.event_out(row) for row in repository.events_after(session, run_id, after, BATCH)]
    newest = events[-1].seq if events else after
    return events, last is not None and newest >= last
