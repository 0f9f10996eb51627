"""After a take-over nothing of the older epoch is stored: every write of a worker is fenced."""

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.apps import client_with, new_key, new_project
from support.clock import expire
from support.hand import Hand, problem, sha256, show, submit

WRITES: dict[str, Callable[[Hand], httpx.Response]] = {
    "heartbeat": lambda hand: hand.heartbeat(step=7),
    "events": lambda hand: hand.events({"type": "log", "data": {"level": "info", "message": "late"}}),
    "checkpoint": lambda hand: hand.checkpoint(5, {}),
    "finish": lambda hand: hand.finish("failed", 1),
    "upload": lambda hand: hand.upload(b"late bytes"),
}


@pytest.fixture
def taken_over(app: FastAPI, client: TestClient, worker: TestClient) -> Hand:
    """The first worker of a stage that a second one has taken over."""
    submit(client)
    first = Hand(worker, "first").take()
    expire(app, first.claim["stage"], 46)  # lease and 15 s of grace
    second = Hand(worker, "second").take(first.claim["stage"])
    assert second.claim["epoch"] == 2
    return first


@pytest.mark.parametrize("write", WRITES)
def test_write_of_the_older_epoch_is_refused_and_stores_nothing(
    client: TestClient, taken_over: Hand, write: str
) -> None:
    before = show(client, taken_over.claim["run"])
    problem(WRITES[write](taken_over), 409, "lease_lost")
    assert show(client, taken_over.claim["run"]) == before
    assert client.head(f"/api/v1/artifacts/{sha256(b'late bytes')}").status_code == 404


@pytest.mark.parametrize("write", WRITES)
def test_wrong_token_is_refused(client: TestClient, worker: TestClient, write: str) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.claim["lease_token"] = "0" * 64
    problem(WRITES[write](hand), 409, "lease_lost")


@pytest.mark.parametrize("write", [name for name in WRITES if name != "upload"])
def test_wrong_epoch_is_refused(client: TestClient, worker: TestClient, write: str) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.claim["epoch"] = 2
    problem(WRITES[write](hand), 409, "lease_lost")


@pytest.mark.parametrize("write", WRITES)
def test_attempt_that_does_not_exist_is_refused(client: TestClient, worker: TestClient, write: str) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.claim["attempt"] = "att_000000000000000000"
    problem(WRITES[write](hand), 409, "lease_lost")


@pytest.mark.parametrize("write", [name for name in WRITES if name != "finish"])
def test_ended_attempt_writes_nothing_more(client: TestClient, worker: TestClient, write: str) -> None:
    submit(client)
    hand = Hand(worker).take()
    assert hand.finish("failed", 1).status_code == 204
    problem(WRITES[write](hand), 409, "lease_lost")


def test_lease_is_not_taken_over_before_the_grace_is_over(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    submit(client)
    first = Hand(worker, "first").take()
    expire(app, first.claim["stage"], 14)
    assert Hand(worker, "second").ask().status_code == 204
    assert first.heartbeat().status_code == 200
    expire(app, first.claim["stage"], 16)
    assert Hand(worker, "second").ask().status_code == 200


def test_late_worker_that_was_not_replaced_may_still_write(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    submit(client)
    hand = Hand(worker).take()
    expire(app, hand.claim["stage"], 20)
    assert hand.succeed().status_code == 204


def test_take_over_marks_the_first_attempt_lost_in_the_same_step(
    client: TestClient, taken_over: Hand
) -> None:
    stage = show(client, taken_over.claim["run"])["stages"][0]
    assert [attempt["state"] for attempt in stage["attempts"]] == ["lost", "running"]
    assert stage["attempts"][0]["cause"] == "lost"
    assert "first" in stage["attempts"][0]["message"]


def test_nothing_is_taken_over_just_after_a_server_start(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    submit(client)
    first = Hand(worker, "first").take()
    expire(app, first.claim["stage"], 1000)
    app.state.started_at = float("inf")  # seconds ago: none
    assert Hand(worker, "second").ask().status_code == 204
    assert first.heartbeat().status_code == 200


def test_worker_key_of_another_kind_is_refused(app: FastAPI, client: TestClient) -> None:
    writer = client_with(app, new_key(app, new_project(app), "runs:write"))
    problem(Hand(writer).ask(), 403, "forbidden_scope")
