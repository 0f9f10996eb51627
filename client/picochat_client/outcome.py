"""What the end of a run, or an error, means to a CI job: the exit code."""

from picochat_contract.api import RunOut, StageOut
from picochat_contract.exit_codes import ClientExit
from picochat_contract.gate import Verdict
from picochat_contract.preflight import PreflightStatus
from picochat_contract.stages import StageName
from picochat_contract.states import Cause, RunState, StageState

from picochat_client._errors import ApiError, PicochatError, RateLimited, ServerFault


def outcome_of(run: RunOut, *, strict: bool = False) -> ClientExit:
    """The exit code of a final run. A gate that was asked for and gave no verdict counts as blocked; so does a run
    that preflight stopped."""
    if run.state is RunState.BLOCKED:
        return ClientExit.GATE_BLOCKED
    if run.state is RunState.CANCELLED:
        return ClientExit.CANCELLED
    if run.state is RunState.FAILED:
        return ClientExit.LOST if _was_lost(run) else ClientExit.RUN_FAILED
    if run.state is not RunState.SUCCEEDED:
        raise ValueError(f"run {run.id} is {run.state}; only a final run has an outcome")
    if not asks_for_gate(run) or run.verdict is Verdict.APPROVED:
        return ClientExit.OK
    if run.verdict is Verdict.WARN:
        return ClientExit.GATE_WARN if strict else ClientExit.OK
    return ClientExit.GATE_BLOCKED


def verdict_exit(verdict: Verdict, *, strict: bool) -> ClientExit:
    """The exit code of a gate report by itself."""
    if verdict is Verdict.WARN and strict:
        return ClientExit.GATE_WARN
    return ClientExit.GATE_BLOCKED if verdict is Verdict.BLOCKED else ClientExit.OK


def preflight_exit(status: PreflightStatus, *, strict: bool) -> ClientExit:
    """The exit code of a preflight report by itself."""
    if status is PreflightStatus.WARN and strict:
        return ClientExit.GATE_WARN
    return ClientExit.GATE_BLOCKED if status is PreflightStatus.BLOCKED else ClientExit.OK


def error_exit(error: PicochatError) -> ClientExit:
    """75 where trying later may help; 64 where the request itself has to change."""
    if isinstance(error, ApiError) and not isinstance(error, ServerFault | RateLimited):
        return ClientExit.USAGE
    return ClientExit.UNREACHABLE


def asks_for_gate(run: RunOut) -> bool:
    return run.gate_profile != "none" and any(stage.name is StageName.GATE for stage in run.stages)


def failed_stage(run: RunOut) -> StageOut | None:
    return next((stage for stage in run.stages if stage.state is StageState.FAILED), None)


def _was_lost(run: RunOut) -> bool:
    """True if the stage failed because its last worker died, not because of what it did."""
    stage = failed_stage(run)
    return stage is not None and bool(stage.attempts) and stage.attempts[-1].cause is Cause.LOST
