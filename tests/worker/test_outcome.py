import pytest
from picochat_contract.manifest import StageError
from picochat_contract.states import Cause
from picochat_worker.errors import StopReason
from picochat_worker.outcome import Ending, judge

ERROR = StageError(code="corpus_missing", message="no corpus at corpus.txt")


def ending(
    exit_code: int | None, stopped_for: StopReason | None = None, error: StageError | None = None
) -> Ending:
    return Ending(exit_code=exit_code, stopped_for=stopped_for, error=error, log_tail="last line")


@pytest.mark.parametrize(
    ("end", "outcome", "cause"),
    [
        (ending(0), "succeeded", None),
        (ending(1), "failed", Cause.CRASH),
        (ending(2), "failed", Cause.BAD_INPUT),
        (ending(127), "failed", Cause.CRASH),
        (ending(-9), "failed", Cause.SIGNAL),
        (ending(75), "interrupted", Cause.INTERRUPTED),
        (ending(75, StopReason.DRAIN), "interrupted", Cause.INTERRUPTED),
        (ending(75, StopReason.CANCEL), "cancelled", Cause.CANCELLED),
        (ending(-9, StopReason.CANCEL), "cancelled", Cause.CANCELLED),
        (ending(-15, StopReason.DRAIN), "interrupted", Cause.INTERRUPTED),
        (ending(1, StopReason.LEASE_END), "interrupted", Cause.INTERRUPTED),
        (ending(None, StopReason.DRAIN), "interrupted", Cause.INTERRUPTED),
        (ending(0, StopReason.DRAIN), "succeeded", None),
        (ending(2, StopReason.DRAIN, ERROR), "failed", Cause.BAD_INPUT),
    ],
)
def test_end_of_a_stage_is_judged(end: Ending, outcome: str, cause: Cause | None) -> None:
    judged = judge(end)
    assert (judged.outcome, judged.cause) == (outcome, cause)
    assert judged.exit_code == end.exit_code


def test_error_file_names_code_and_message() -> None:
    judged = judge(ending(2, error=ERROR))
    assert (judged.code, judged.message) == ("corpus_missing", "no corpus at corpus.txt")


def test_without_error_file_the_log_tail_is_the_message() -> None:
    assert judge(ending(1)).message == "last line"


def test_signal_is_named() -> None:
    assert "SIGKILL" in (judge(ending(-9)).message or "")
