"""States and the only tables by which they change. `move()` is used by every writer."""

from enum import StrEnum
from typing import TypeVar

from picochat_contract.errors import Code, TransitionError


class RunState(StrEnum):
    QUEUED = "queued"  # accepted, no stage has started
    RUNNING = "running"  # at least one stage was claimed or finished
    SUCCEEDED = "succeeded"  # every stage finished; the verdict is a separate matter
    BLOCKED = "blocked"  # preflight refused it; nothing after preflight was run
    FAILED = "failed"  # a stage failed; later stages were skipped
    CANCELLED = "cancelled"  # somebody asked for it and the work has stopped


class StageState(StrEnum):
    PENDING = "pending"  # waits for another stage
    QUEUED = "queued"  # a worker may claim it
    RUNNING = "running"  # claimed, lease live
    UNREACHABLE = "unreachable"  # lease late; the worker may still come back within the grace period
    SUCCEEDED = "succeeded"  # manifest stored
    CACHED = "cached"  # an equal fingerprint had finished before; its outputs were linked
    FAILED = "failed"  # no attempt left, or a cause that a retry cannot mend
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # a stage before it did not succeed, or preflight blocked the run


class AttemptState(StrEnum):
    RUNNING = "running"
    UNREACHABLE = "unreachable"  # heartbeat late
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # stopped after a checkpoint (drain, shutdown)
    CANCELLED = "cancelled"
    LOST = "lost"  # lease and grace over; its writes are refused


class DesiredState(StrEnum):
    RUNNING = "running"
    CANCELLED = "cancelled"


class Cause(StrEnum):
    """Why an attempt ended badly; decides whether the stage is tried again."""

    BAD_INPUT = "bad_input"  # exit 2: never retried
    CRASH = "crash"  # exit 1: a fault that will most likely repeat, not retried
    SIGNAL = "signal"  # killed from outside (OOM killer, kill -9): retried
    LOST = "lost"  # lease over: retried
    INTERRUPTED = "interrupted"  # exit 75: retried
    UPLOAD = "upload"  # outputs could not be stored: retried
    CANCELLED = "cancelled"


RETRIED_CAUSES = frozenset({Cause.SIGNAL, Cause.LOST, Cause.INTERRUPTED, Cause.UPLOAD})

RUN_TRANSITIONS: dict[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.FAILED, RunState.CANCELLED}),
    RunState.RUNNING: frozenset({RunState.SUCCEEDED, RunState.BLOCKED, RunState.FAILED, RunState.CANCELLED}),
    RunState.SUCCEEDED: frozenset(),
    RunState.BLOCKED: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
}

STAGE_TRANSITIONS: dict[StageState, frozenset[StageState]] = {
    StageState.PENDING: frozenset(
        {StageState.QUEUED, StageState.CACHED, StageState.SKIPPED, StageState.CANCELLED}
    ),
    StageState.QUEUED: frozenset({StageState.RUNNING, StageState.CACHED, StageState.CANCELLED}),
    StageState.RUNNING: frozenset(
        {
            StageState.UNREACHABLE,
            StageState.SUCCEEDED,
            StageState.FAILED,
            StageState.QUEUED,
            StageState.CANCELLED,
        }
    ),
    StageState.UNREACHABLE: frozenset(
        {
            StageState.RUNNING,
            StageState.SUCCEEDED,
            StageState.FAILED,
            StageState.QUEUED,
            StageState.CANCELLED,
        }
    ),
    StageState.SUCCEEDED: frozenset(),
    StageState.CACHED: frozenset(),
    StageState.FAILED: frozenset(),
    StageState.CANCELLED: frozenset(),
    StageState.SKIPPED: frozenset(),
}

ATTEMPT_TRANSITIONS: dict[AttemptState, frozenset[AttemptState]] = {
    AttemptState.RUNNING: frozenset(AttemptState) - {AttemptState.RUNNING},
    AttemptState.UNREACHABLE: frozenset(AttemptState) - {AttemptState.UNREACHABLE},
    AttemptState.SUCCEEDED: frozenset(),
    AttemptState.FAILED: frozenset(),
    AttemptState.INTERRUPTED: frozenset(),
    AttemptState.CANCELLED: frozenset(),
    AttemptState.LOST: frozenset(),
}

RUN_FINAL = frozenset(state for state, after in RUN_TRANSITIONS.items() if not after)
STAGE_FINAL = frozenset(state for state, after in STAGE_TRANSITIONS.items() if not after)
STAGE_DONE = frozenset({StageState.SUCCEEDED, StageState.CACHED})

S = TypeVar("S", RunState, StageState, AttemptState)


def move(table: dict[S, frozenset[S]], old: S, new: S) -> S:
    """Return `new` if `old -> new` is in `table`; raise TransitionError otherwise."""
    if new not in table[old]:
        allowed = ", ".join(sorted(table[old])) or "nothing: it is final"
        raise TransitionError(
            Code.ILLEGAL_TRANSITION,
            f"{type(old).__name__} cannot go from {old} to {new}; from {old} it may go to {allowed}",
        )
    return new
