"""What the end of a stage process means for its attempt. Pure."""

import signal
from dataclasses import dataclass
from typing import Literal

from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import StageError
from picochat_contract.states import Cause

from picochat_worker.errors import StopReason


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a stage process ended."""

    exit_code: int | None
    """Negative: the signal. None: it was never started."""
    stopped_for: StopReason | None
    """Why the worker ended it, if it did."""
    error: StageError | None
    log_tail: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The fields of `FinishIn` but fence and manifest."""

    outcome: Literal["succeeded", "failed", "interrupted", "cancelled"]
    exit_code: int | None
    cause: Cause | None = None
    code: str | None = None
    message: str | None = None


def judge(end: Ending) -> Outcome:
    code = end.exit_code
    if end.stopped_for == StopReason.CANCEL:
        return Outcome(outcome="cancelled", exit_code=code, cause=Cause.CANCELLED, message=end.stopped_for)
    if code == StageExit.DONE:
        return Outcome(outcome="succeeded", exit_code=code)
    if code in (StageExit.INTERRUPTED, None) or (end.stopped_for and end.error is None):
        why = end.stopped_for or "the stage was told to stop"
        return Outcome(outcome="interrupted", exit_code=code, cause=Cause.INTERRUPTED, message=why)
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        message = f"the stage was killed from outside by {name}"
        return Outcome(outcome="failed", exit_code=code, cause=Cause.SIGNAL, message=message)
    cause = Cause.BAD_INPUT if code == StageExit.BAD_INPUT else Cause.CRASH
    if end.error:
        return Outcome(
            outcome="failed", exit_code=code, cause=cause, code=end.error.code, message=end.error.message
        )
    message = end.log_tail or f"the stage ended with exit code {code} and wrote neither error.json nor a log"
    return Outcome(outcome="failed", exit_code=code, cause=cause, message=message)


def fault(cause: Cause, code: str | None, message: str, *, exit_code: int | None = None) -> Outcome:
    """A failure that is not told by the stage's exit code."""
    return Outcome(outcome="failed", exit_code=exit_code, cause=cause, code=code, message=message)
