"""Background rounds: outbox, reaper, reconciler. Each is idempotent; one server at a time runs them."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.loops import rounds as rounds_module
from picochat_server.loops.guard import round_lock
from picochat_server.loops.outbox import CeleryHints, NoHints, forget_published, publish
from picochat_server.loops.reconciler import reconcile
from picochat_server.loops.rounds import Rounds
from picochat_server.models import Outbox, Stage
from sqlalchemy import func, select, update
from support.clock import expire, reap_now
from support.hand import Hand, show, states, submit


class Told:
    """Hints that are remembered; fails after `num_good` of them."""

    def __init__(self, num_good: int = 1000) -> None:
        self.stages: list[str] = []
        self.num_good = num_good

    def send(self, stage_id: str) -> None:
        if len(self.stages) >= self.num_good:
            raise ConnectionError("the broker is away")
        self.stages.append(stage_id)


def _rounds(app: FastAPI, **changes: Any) -> Rounds:
    state = app.state
    settings = state.settings.model_copy(update=changes)
    return Rounds(settings, state.engines[0], state.sessions, state.store, started_at=state.started_at)


def test_each_hint_is_published_once(app: FastAPI, client: TestClient) -> None:
    run = submit(client)
    told = Told()
    assert publish(app.state.sessions, told) == 1
    assert publish(app.state.sessions, told) == 0
    assert told.stages == [run["stages"][0]["id"]]


def test_broken_broker_keeps_what_was_not_sent(app: FastAPI, client: TestClient) -> None:
    stages = [submit(client)["stages"][0]["id"] for _ in range(3)]
    with pytest.raises(ConnectionError):
        publish(app.state.sessions, Told(num_good=1))
    told = Told()
    publish(app.state.sessions, told)
    assert told.stages == stages[1:]


def test_without_a_broker_hints_are_just_marked(app: FastAPI, client: TestClient) -> None:
    submit(client)
    assert publish(app.state.sessions, NoHints()) == 1
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).where(Outbox.published_at.is_(None))) == 0


def test_hint_reaches_a_real_broker_as_the_task_of_its_stage(redis_url: str) -> None:
    hints = CeleryHints(redis_url, "hints-test")
    hints.send("stg_1")
    hints.close()
    with redis.Redis.from_url(redis_url) as broker:
        message = json.loads(broker.lpop("hints-test"))  # type: ignore[arg-type]
    assert message["headers"]["task"] == "picochat.run_stage"
    assert message["headers"]["argsrepr"] == "['stg_1']"


def test_published_rows_are_forgotten_after_a_while(app: FastAPI, client: TestClient) -> None:
    submit(client)
    publish(app.state.sessions, NoHints())
    forget_published(app.state.sessions)
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Outbox)) == 1
        session.execute(update(Outbox).values(published_at=datetime(2020, 1, 1, tzinfo=UTC)))
    forget_published(app.state.sessions)
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Outbox)) == 0


def test_forgotten_stage_is_hinted_again_once_a_period(app: FastAPI, client: TestClient) -> None:
    run = submit(client)
    stage = run["stages"][0]["id"]
    publish(app.state.sessions, Told())  # and the broker is flushed
    assert reconcile(app.state.sessions, 30) == 0
    with transaction(app.state.sessions) as session:
        session.execute(update(Stage).where(Stage.id == stage).values(queued_at=Stage.queued_at - 31))
    assert reconcile(app.state.sessions, 30) == 1
    assert reconcile(app.state.sessions, 30) == 0
    told = Told()
    publish(app.state.sessions, told)
    assert told.stages == [stage]


def test_hints_do_not_pile_up_while_the_broker_is_away(app: FastAPI, client: TestClient) -> None:
    stage = submit(client)["stages"][0]["id"]
    for _ in range(3):
        with pytest.raises(ConnectionError):
            publish(app.state.sessions, Told(num_good=0))
        with transaction(app.state.sessions) as session:
            session.execute(update(Stage).values(queued_at=Stage.queued_at - 31))
        assert reconcile(app.state.sessions, 30) == 0
    told = Told()
    publish(app.state.sessions, told)
    assert told.stages == [stage]


def test_claimed_stage_is_not_hinted_again(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    with transaction(app.state.sessions) as session:
        session.execute(update(Stage).where(Stage.id == hand.claim["stage"]).values(queued_at=0.0))
    assert reconcile(app.state.sessions, 30) == 0


def test_late_lease_is_unreachable_and_after_the_grace_lost(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    assert reap_now(app) == 0
    for seconds_ago, state in ((1, "unreachable"), (14, "unreachable"), (16, "queued")):
        expire(app, hand.claim["stage"], seconds_ago)
        reap_now(app)
        assert states(show(client, run))["dataset"] == state
    assert reap_now(app) == 0
    attempt = show(client, run)["stages"][0]["attempts"][0]
    assert (attempt["state"], attempt["cause"]) == ("lost", "lost")


def test_lease_and_grace_over_at_once_is_lost_in_one_round(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    expire(app, hand.claim["stage"], 1000)
    reap_now(app)
    assert states(show(client, run))["dataset"] == "queued"


def test_lost_stage_is_hinted(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    publish(app.state.sessions, Told())
    expire(app, hand.claim["stage"], 16)
    reap_now(app)
    told = Told()
    publish(app.state.sessions, told)
    assert told.stages == [hand.claim["stage"]]


def test_no_reaping_for_one_lease_after_a_start(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    expire(app, Hand(worker).take().claim["stage"], 1000)
    app.state.started_at = time.monotonic()
    assert _rounds(app).run_once()
    assert states(show(client, run))["dataset"] == "running"
    app.state.started_at -= 31
    assert _rounds(app).run_once()
    assert states(show(client, run))["dataset"] == "queued"


def test_one_server_at_a_time_runs_a_round(app: FastAPI) -> None:
    with round_lock(app.state.engines[0]) as first, round_lock(app.state.engines[1]) as second:
        assert (first, second) == (True, False)
        assert not _rounds(app).run_once()
    assert _rounds(app).run_once()


def test_failing_step_does_not_stop_the_others(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(client)

    def fail(*_: object) -> int:
        raise RuntimeError("the reaper is broken")

    monkeypatch.setattr(rounds_module, "reap", fail)
    assert _rounds(app).run_once()
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).where(Outbox.published_at.is_(None))) == 0


@pytest.fixture
def started(app: FastAPI) -> Iterator[Rounds]:
    rounds = _rounds(app, loop_seconds=0.01)
    rounds.start()
    yield rounds
    rounds.stop()


def test_thread_goes_round_by_itself(app: FastAPI, client: TestClient, started: Rounds) -> None:
    submit(client)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with transaction(app.state.sessions) as session:
            if session.scalar(select(func.count()).where(Outbox.published_at.is_(None))) == 0:
                return
        time.sleep(0.02)
    raise AssertionError("the hint was never published")
