"""What a worker reports while an attempt runs: events with their metrics, and complete checkpoints."""

import math
import sys
from datetime import datetime
from typing import Any

from picochat_contract.api import CheckpointIn, EventsIn, EventsOut
from picochat_contract.errors import Code
from picochat_contract.events import EventType, StageEvent
from picochat_contract.layout import check_artifact_path
from sqlalchemy.orm import Session

from picochat_server.artifacts.service import readable
from picochat_server.leases.service import locked_fence
from picochat_server.models import Attempt, Metric, Run, Stage
from picochat_server.problems import ApiProblem
from picochat_server.runs import events

MAX_METRIC_NAME = 64


def record_events(session: Session, attempt_id: str, body: EventsIn) -> EventsOut:
    """Store what is new of a batch: events at or below the highest stored number are repeats."""
    run, stage, attempt = locked_fence(session, attempt_id, body.lease_token, body.epoch)
    for event in sorted(body.events, key=lambda event: event.seq):
        if event.seq > attempt.last_client_seq:
            _record(session, run, stage, attempt, event)
            attempt.last_client_seq = event.seq
    session.flush()
    return EventsOut(last_seq=attempt.last_client_seq)


def record_checkpoint(session: Session, attempt_id: str, body: CheckpointIn) -> None:
    """Make a checkpoint whose files are all stored the stage's resume point; never go back to fewer steps."""
    run, stage, attempt = locked_fence(session, attempt_id, body.lease_token, body.epoch)
    checkpoint = body.checkpoint
    for file in checkpoint.files:
        check_artifact_path(file.path)
        if not readable(session, run.project_id, file.sha256):
            raise ApiProblem(
                422,
                Code.NOT_FOUND,
                f"checkpoint file {file.path!r}: no bytes with sha256 {file.sha256} are stored; upload them first",
                param="checkpoint.files",
            )
    if stage.resume is not None and stage.resume["step"] > checkpoint.step:
        return
    stage.resume = {
        "epoch": attempt.epoch,
        "step": checkpoint.step,
        "files": [file.model_dump(mode="json") for file in checkpoint.files],
    }


def storable(value: Any) -> Any:
    """JSON that both databases and every reader take: numbers that are none become null, NUL is dropped."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(str(key)): storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable(inner) for inner in value]
    return value


def storable_text(text: str) -> str:
    """Without NUL, which Postgres refuses, and without lone surrogates, which are no UTF-8."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _record(session: Session, run: Run, stage: Stage, attempt: Attempt, event: StageEvent) -> None:
    data = storable(event.data)
    if event.type is EventType.STATE:
        raise ApiProblem(
            422,
            Code.INVALID_REQUEST,
            f"event {event.seq}: a stage does not write {EventType.STATE.value!r} events; states are the server's",
            param="events",
        )
    if event.type is EventType.GATE:
        data["advice"] = True  # the server's own decision comes when the stage is done
    if event.type is EventType.PROGRESS:
        _progress(stage, data)
    if event.type is EventType.METRIC:
        _metrics(session, run, stage, attempt, data)
    events.append(session, run, event.type, stage.name, attempt.epoch, data, time=_aware(event))


def _progress(stage: Stage, data: dict[str, Any]) -> None:
    if _is_count(data.get("step")):
        stage.step = data["step"]
    if _is_count(data.get("total_steps")):
        stage.total_steps = data["total_steps"]


def _metrics(session: Session, run: Run, stage: Stage, attempt: Attempt, data: dict[str, Any]) -> None:
    step, values = data.get("step"), data.get("values")
    if not _is_count(step) or not isinstance(values, dict):
        raise ApiProblem(
            422,
            Code.INVALID_REQUEST,
            "a metric event's data is {step: a count, values: {name: number}}",
            param="events",
        )
    numbers = {name[:MAX_METRIC_NAME]: float(value) for name, value in values.items() if is_number(value)}
    session.add_all(
        Metric(run_id=run.id, stage=stage.name, epoch=attempt.epoch, step=step, name=name, value=value)
        for name, value in numbers.items()
    )
    stage.metrics = {**stage.metrics, **numbers}
    stage.step = step


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def is_number(value: Any) -> bool:
    """A number that both databases hold and JSON can carry."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _aware(event: StageEvent) -> datetime:
    if event.time.tzinfo is None:
        raise ApiProblem(
            422,
            Code.INVALID_REQUEST,
            f"event {event.seq}: time {event.time.isoformat()} has no zone; send UTC",
            param="events",
        )
    return event.time
