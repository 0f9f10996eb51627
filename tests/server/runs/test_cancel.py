"""Cancel: what waits ends at once, what runs is asked, and asking twice changes nothing."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.models import Audit
from sqlalchemy import select
from support.clock import expire, reap_now
from support.hand import Hand, problem, show, states, submit


def test_queued_run_is_cancelled_at_once(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    answer = client.post(f"/api/v1/runs/{run['id']}/cancel")
    assert answer.status_code == 202
    assert answer.json()["state"] == "cancelled"
    assert Hand(worker).ask().status_code == 204


def test_running_stage_is_asked_and_the_rest_is_cancelled(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    answer = client.post(f"/api/v1/runs/{run['id']}/cancel").json()
    assert (answer["state"], answer["desired_state"]) == ("running", "cancelled")
    assert states(answer) == {
        "dataset": "running",
        **dict.fromkeys(("honesty", "preflight", "tokenizer"), "cancelled"),
    }
    assert hand.finish("cancelled", 75).status_code == 204
    shown = show(client, run)
    assert (shown["state"], states(shown)["dataset"]) == ("cancelled", "cancelled")
    assert shown["stages"][0]["attempts"][0]["state"] == "cancelled"


def test_cancel_twice_changes_nothing(app: FastAPI, client: TestClient) -> None:
    run = submit(client)
    first = client.post(f"/api/v1/runs/{run['id']}/cancel").json()
    assert client.post(f"/api/v1/runs/{run['id']}/cancel").json() == first
    with transaction(app.state.sessions) as session:
        actions = session.scalars(select(Audit.action).order_by(Audit.id)).all()
    assert actions == ["run.submit", "run.cancel"]


def test_worker_that_dies_while_it_should_cancel_leaves_a_cancelled_run(
    app: FastAPI, client: TestClient, worker: TestClient
) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    client.post(f"/api/v1/runs/{run['id']}/cancel")
    expire(app, hand.claim["stage"], 16)
    assert Hand(worker, "second").ask().status_code == 204
    assert reap_now(app) == 1
    assert show(client, run)["state"] == "cancelled"


def test_finished_run_cannot_be_cancelled(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    Hand(worker).run_all()
    problem(client.post(f"/api/v1/runs/{run['id']}/cancel"), 409, "illegal_transition")


def test_stage_that_succeeds_before_it_hears_of_the_wish_keeps_its_outputs(
    client: TestClient, worker: TestClient
) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    client.post(f"/api/v1/runs/{run['id']}/cancel")
    assert hand.succeed().status_code == 204
    shown = show(client, run)
    assert (shown["state"], states(shown)["dataset"]) == ("cancelled", "succeeded")
