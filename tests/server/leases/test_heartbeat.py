"""Heartbeats extend the lease, carry wishes to the worker, and bring a late one back."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import database_now, transaction
from picochat_server.models import Stage
from sqlalchemy import select
from support.clock import expire, reap_now
from support.hand import Hand, problem, show, submit


def _seconds_left(app: FastAPI, stage_id: str) -> float:
    with transaction(app.state.sessions) as session:
        query = select(Stage.lease_expires_at - database_now()).where(Stage.id == stage_id)
        return session.execute(query).scalar_one()


def test_heartbeat_extends_the_lease_by_the_database_clock(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    submit(client)
    hand = Hand(worker).take()
    expire(app, hand.claim["stage"], -1)
    assert _seconds_left(app, hand.claim["stage"]) < 2
    assert hand.heartbeat().json()["lease_seconds"] == 30
    assert 25 < _seconds_left(app, hand.claim["stage"]) <= 30


def test_heartbeat_reports_the_step(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    Hand(worker).take().heartbeat(step=12)
    assert show(client, run)["stages"][0]["step"] == 12


def test_cancel_reaches_the_worker_with_the_next_heartbeat(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    assert hand.heartbeat().json()["desired_state"] == "running"
    client.post(f"/api/v1/runs/{run['id']}/cancel")
    assert hand.heartbeat().json()["desired_state"] == "cancelled"


def test_checkpoint_wish_is_told_once(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    assert client.post(f"/api/v1/runs/{run['id']}/checkpoint").status_code == 202
    assert [hand.heartbeat().json()["checkpoint_now"] for _ in range(2)] == [True, False]


def test_checkpoint_of_a_run_that_does_nothing_is_refused(client: TestClient) -> None:
    run = submit(client)
    problem(client.post(f"/api/v1/runs/{run['id']}/checkpoint"), 409, "illegal_transition")


def test_unreachable_worker_comes_back(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    expire(app, hand.claim["stage"], 5)
    assert reap_now(app) == 1
    stage = show(client, run)["stages"][0]
    assert (stage["state"], stage["attempts"][0]["state"]) == ("unreachable", "unreachable")
    assert hand.heartbeat().status_code == 200
    stage = show(client, run)["stages"][0]
    assert (stage["state"], stage["attempts"][0]["state"]) == ("running", "running")


def test_heartbeats_use_their_own_connections(app: FastAPI, client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    engine, _ = app.state.engines
    held = [engine.connect() for _ in range(20)]  # pool and overflow: every page would have to wait
    try:
        assert hand.heartbeat().status_code == 200
    finally:
        for connection in held:
            connection.close()
