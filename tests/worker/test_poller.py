import threading
import time

import pytest
from picochat_contract.api import Claim, ClaimIn
from picochat_contract.errors import Code
from picochat_worker import poller as module
from picochat_worker.errors import Rejected, Unreachable
from picochat_worker.poller import Poller
from picochat_worker.stop_request import StopRequest

from .conftest import make_claim, wait_for

ASK = ClaimIn(worker="w", host="h", device="cpu")
Answer = Claim | None | Exception


class Script:
    """Answers claims one by one, then stops the poller."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str | None] = []
        self.times: list[float] = []
        self.run: list[str] = []
        self.stop = StopRequest()

    def claim(self, ask: ClaimIn) -> Claim | None:
        self.asked.append(ask.stage)
        self.times.append(time.monotonic())
        answer = self.answers.pop(0)
        if not self.answers:
            self.stop.request()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def supervise(self, claim: Claim, claimed_at: float) -> None:
        assert claimed_at <= time.monotonic()
        self.run.append(claim.stage)

    def poller(self, poll_seconds: float = 0.01) -> Poller:
        return Poller(
            claim=self.claim, supervise=self.supervise, ask=ASK, poll_seconds=poll_seconds, stop=self.stop
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "AWAY_PAUSE_SECONDS", 0.02)


def test_work_is_run_until_told_to_stop() -> None:
    script = Script(make_claim(stage="stg_1"), None, make_claim(stage="stg_2"))
    script.poller().run()
    assert script.run == ["stg_1", "stg_2"]


@pytest.mark.parametrize("error", [Unreachable("away"), Rejected(404, Code.NOT_FOUND, "no such stage")])
def test_poller_outlives_errors(error: Exception) -> None:
    script = Script(error, make_claim(stage="stg_1"))
    script.poller().run()
    assert script.run == ["stg_1"]


def test_refused_key_ends_the_poller() -> None:
    script = Script(Rejected(401, Code.UNAUTHENTICATED, "no such key"), None)
    with pytest.raises(Rejected):
        script.poller().run()


def test_once_asks_until_one_answer_came() -> None:
    script = Script(Unreachable("away"), None, make_claim(), None)
    script.poller().run(once=True)
    assert (script.asked, script.run) == ([None, None], [])


def test_idle_pauses_grow_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    script = Script(*[None] * 8)
    script.poller(poll_seconds=0.08).run()
    pauses = [after - before for before, after in zip(script.times, script.times[1:], strict=False)]
    assert pauses[0] < pauses[3]
    assert all(0.07 < pause < 1 for pause in pauses[4:])


def offered(poller: Poller, *stages: str) -> list[threading.Thread]:
    threads = [threading.Thread(target=poller.offer, args=(stage,)) for stage in stages]
    for thread in threads:
        thread.start()
    return threads


def test_hint_is_claimed_at_once_and_by_name() -> None:
    script = Script(None, make_claim(stage="stg_7"))
    poller = script.poller(poll_seconds=60)
    thread = threading.Thread(target=poller.run)
    thread.start()
    wait_for(lambda: script.asked, "the first poll")
    [offer] = offered(poller, "stg_7")
    offer.join(5)
    thread.join(5)
    assert not offer.is_alive()
    assert (script.asked, script.run) == ([None, "stg_7"], ["stg_7"])


def test_offer_returns_when_the_poller_has_ended() -> None:
    script = Script(None)
    poller = script.poller()
    poller.run()
    [offer] = offered(poller, "stg_1")
    offer.join(5)
    assert not offer.is_alive()


def test_one_stage_at_a_time() -> None:
    running: list[str] = []
    most: list[int] = []
    stop = StopRequest()

    def supervise(claim: Claim, _claimed_at: float) -> None:
        running.append(claim.stage)
        most.append(len(running))
        until = time.monotonic() + 0.05
        wait_for(lambda: time.monotonic() > until, "the work")
        running.clear()

    def claim(ask: ClaimIn) -> Claim | None:
        return make_claim(stage=ask.stage) if ask.stage else None

    poller = Poller(claim=claim, supervise=supervise, ask=ASK, poll_seconds=60, stop=stop)
    thread = threading.Thread(target=poller.run)
    thread.start()
    for offer in offered(poller, "a", "b", "c"):
        offer.join(5)
    stop.request()
    thread.join(5)
    assert most == [1, 1, 1]
