import pytest
from picochat_client import (
    NotFound,
    PicochatError,
    RateLimited,
    ServerFault,
    ServerUnreachable,
    TransferCorrupt,
    Unauthenticated,
    outcome_of,
)
from picochat_client.outcome import error_exit
from picochat_contract.exit_codes import ClientExit
from picochat_contract.gate import Verdict
from picochat_contract.states import Cause, RunState

from .scripted import FakeRun, Script

GATED: dict[str, object] = {"scale": "smoke"}
UNGATED: dict[str, object] = {"scale": "smoke", "gate": {"profile": "none"}}
UNTIL_SFT: dict[str, object] = {"scale": "smoke", "until": "sft"}


def final_run(body: dict[str, object], script: Script) -> FakeRun:
    run = FakeRun("run_1", body, script)
    run.visible = len(run.events)
    return run


@pytest.mark.parametrize(
    ("body", "verdict", "strict", "expected"),
    [
        (GATED, Verdict.APPROVED, True, ClientExit.OK),
        (GATED, Verdict.WARN, False, ClientExit.OK),
        (GATED, Verdict.WARN, True, ClientExit.GATE_WARN),
        (GATED, Verdict.BLOCKED, False, ClientExit.GATE_BLOCKED),
        (GATED, None, False, ClientExit.GATE_BLOCKED),  # fails closed
        (UNGATED, None, True, ClientExit.OK),
        (UNTIL_SFT, None, True, ClientExit.OK),
    ],
)
def test_outcome_of_a_run_that_succeeded(
    body: dict[str, object], verdict: Verdict | None, strict: bool, expected: ClientExit
) -> None:
    assert outcome_of(final_run(body, Script(verdict=verdict)).out(), strict=strict) is expected


@pytest.mark.parametrize("cause", list(Cause))
def test_a_failed_run_is_lost_only_by_its_last_cause(cause: Cause) -> None:
    run = final_run(GATED, Script(RunState.FAILED, None, cause=cause, num_attempts=3)).out()
    assert outcome_of(run) is (ClientExit.LOST if cause is Cause.LOST else ClientExit.RUN_FAILED)


def test_a_cancelled_run_and_one_that_goes_on() -> None:
    run = FakeRun("run_1", GATED, Script())
    with pytest.raises(ValueError, match="only a final run"):
        outcome_of(run.out())
    run.cancelled = True
    assert outcome_of(run.out()) is ClientExit.CANCELLED


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unauthenticated(401, "unauthenticated", "x"), ClientExit.USAGE),
        (NotFound(404, "not_found", "x"), ClientExit.USAGE),
        (ServerFault(503, "database_busy", "x"), ClientExit.UNREACHABLE),
        (RateLimited(429, "x", "x"), ClientExit.UNREACHABLE),
        (ServerUnreachable("x"), ClientExit.UNREACHABLE),
        (TransferCorrupt("x"), ClientExit.UNREACHABLE),
    ],
)
def test_an_error_exits_75_only_where_later_may_help(error: PicochatError, expected: ClientExit) -> None:
    assert error_exit(error) is expected
