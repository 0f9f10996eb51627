"""Rows as the shapes of the API."""

from collections import defaultdict
from collections.abc import Sequence

from picochat_contract.api import AttemptOut, EventOut, RunOut, RunSummary, StageOut
from picochat_contract.stages import StageName
from picochat_contract.states import STAGE_DONE, STAGE_FINAL, RunState, StageState

from picochat_server.models import Attempt, Audit, Event, Run, Stage


def run_summary(run: Run, stages: Sequence[Stage], project: str) -> RunSummary:
    return RunSummary.model_validate(_summary(run, stages, project))


def run_out(
    run: Run,
    stages: Sequence[Stage],
    attempts: Sequence[Attempt],
    project: str,
    confirmation: tuple[Audit, str | None] | None,
) -> RunOut:
    by_stage: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        by_stage[attempt.stage_id].append(attempt)
    return RunOut.model_validate(
        _summary(run, stages, project)
        | {
            "spec": run.spec,
            "stages": [_stage(stage, by_stage[stage.id]) for stage in stages],
            "gate_profile": run.gate_profile,
            "last_seq": run.event_seq,
            "confirmed_launch": confirmation and _confirmed(*confirmation),
        }
    )


def _confirmed(row: Audit, key_name: str | None) -> dict[str, object]:
    return {
        "confirmed_by": key_name or row.actor,
        "key": row.actor,
        "confirmed_at": row.time,
        "launch": row.data,
    }


def event_out(event: Event) -> EventOut:
    return EventOut.model_validate(
        {
            "seq": event.seq,
            "time": event.time,
            "type": event.type,
            "stage": event.stage,
            "epoch": event.epoch,
            "data": event.data,
        }
    )


def _summary(run: Run, stages: Sequence[Stage], project: str) -> dict[str, object]:
    return {
        "id": run.id,
        "name": run.name,
        "project": project,
        "state": run.state,
        "desired_state": run.desired_state,
        "verdict": run.verdict,
        "scale": run.scale,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "current_stage": _current(run, stages),
        "metrics": run.metrics,
        "message": run.message,
    }


def _current(run: Run, stages: Sequence[Stage]) -> str | None:
    """The first stage that is under way or waits; of an ended run the one that ended it, else none."""
    if run.state == RunState.BLOCKED:
        return StageName.PREFLIGHT.value
    states = [(stage.name, StageState(stage.state)) for stage in stages]
    under_way = [name for name, state in states if state not in STAGE_FINAL]
    unsuccessful = [name for name, state in states if state in STAGE_FINAL - STAGE_DONE]
    return next(iter(under_way or unsuccessful), None)


def _stage(stage: Stage, attempts: Sequence[Attempt]) -> StageOut:
    return StageOut.model_validate(
        {
            "id": stage.id,
            "name": stage.name,
            "state": stage.state,
            "epoch": stage.epoch,
            "fingerprint": stage.fingerprint,
            "needs": stage.needs,
            "started_at": stage.started_at,
            "finished_at": stage.finished_at,
            "step": stage.step,
            "total_steps": stage.total_steps,
            "metrics": stage.metrics,
            "message": stage.message,
            "cached_from": stage.cached_from,
            "attempts": [_attempt(attempt) for attempt in attempts],
        }
    )


def _attempt(attempt: Attempt) -> AttemptOut:
    return AttemptOut.model_validate(
        {
            "id": attempt.id,
            "epoch": attempt.epoch,
            "state": attempt.state,
            "worker": attempt.worker,
            "started_at": attempt.started_at,
            "finished_at": attempt.finished_at,
            "cause": attempt.cause,
            "message": attempt.message,
            "exit_code": attempt.exit_code,
        }
    )
