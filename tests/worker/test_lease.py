import pytest
from picochat_contract.api import HeartbeatOut
from picochat_contract.states import DesiredState
from picochat_worker.errors import LeaseLost, StopReason, Unreachable
from picochat_worker.lease import Lease
from picochat_worker.retry import Patience, until_answered
from picochat_worker.stop_request import StopRequest, stop_reason

from .conftest import make_claim


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease(clock: Clock) -> Lease:
    return Lease(make_claim(lease_seconds=30, grace_seconds=10), claimed_at=100, clock=clock)


def answer(desired: DesiredState = DesiredState.RUNNING, *, checkpoint_now: bool = False) -> HeartbeatOut:
    return HeartbeatOut(lease_seconds=20, desired_state=desired, checkpoint_now=checkpoint_now)


def test_lease_counts_from_when_it_was_asked_for(lease: Lease, clock: Clock) -> None:
    assert lease.stop_at == 130
    clock.now = 128
    lease.renew(125, answer())
    assert lease.stop_at == 145


def test_kill_comes_before_another_worker_may_start(lease: Lease) -> None:
    assert lease.stop_at < lease.kill_at < 130 + 10


def test_checkpoint_request_is_taken_once(lease: Lease) -> None:
    lease.renew(100, answer(checkpoint_now=True))
    lease.renew(101, answer())
    assert [lease.take_checkpoint_request(), lease.take_checkpoint_request()] == [True, False]


def test_reasons_to_stop(lease: Lease, clock: Clock) -> None:
    stop = StopRequest()
    assert stop_reason(lease, stop) is None
    clock.now = 130
    assert stop_reason(lease, stop) == StopReason.LEASE_END
    stop.request()
    assert stop_reason(lease, stop) == StopReason.DRAIN
    lease.renew(130, answer(DesiredState.CANCELLED))
    assert stop_reason(lease, stop) == StopReason.CANCEL


def test_patience_ends_after_its_time_of_failures(lease: Lease, clock: Clock) -> None:
    patience = Patience(lease, 5)
    assert not patience.exhausted()
    clock.now = 104
    assert not patience.exhausted(failing=False)
    assert not patience.exhausted()
    clock.now = 110
    assert patience.exhausted()


def test_patience_has_no_end_while_the_whole_server_is_away(lease: Lease, clock: Clock) -> None:
    patience = Patience(lease, 5)
    assert not patience.exhausted()
    clock.now = 10_000
    assert not patience.exhausted()


def test_retry_returns_the_first_answer() -> None:
    answers: list[Exception | int] = [Unreachable("away"), 7]

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until_answered(call, check=lambda: None, give_up=lambda: False) == 7


def test_retry_is_broken_off_by_its_check() -> None:
    def lost() -> None:
        raise LeaseLost("meanwhile")

    with pytest.raises(LeaseLost):
        until_answered(lambda: 1, check=lost, give_up=lambda: False)


def test_retry_gives_up_with_the_last_error() -> None:
    def call() -> None:
        raise Unreachable("away")

    with pytest.raises(Unreachable):
        until_answered(call, check=lambda: None, give_up=lambda: True)
