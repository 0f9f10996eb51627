"""Runs that are paid for by the hour: refused until they are confirmed, and who confirmed them stays on record."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.db import transaction
from picochat_server.models import Audit, Run
from sqlalchemy import func, select
from support.hand import problem, submit

PAID = {"name": "paid", "scale": "h100-pilot"}
CONFIRMED = {**PAID, "confirm_paid_launch": True}


def num_runs(app: FastAPI) -> int:
    with transaction(app.state.sessions) as session:
        return session.scalar(select(func.count()).select_from(Run)) or 0


def test_an_unconfirmed_paid_run_is_refused_and_leaves_nothing(app: FastAPI, client: TestClient) -> None:
    found = problem(client.post("/api/v1/runs", json=PAID), 409, "confirmation_required")
    assert "h100-pilot" in found["detail"] and "--confirm-paid-launch" in found["detail"]
    assert found["param"] == "confirm_paid_launch"
    assert found["launch"]["planned_tokens"] == 5_000 * 128 * 512
    assert num_runs(app) == 0


def test_a_confirmed_one_is_accepted_and_says_who_and_what(app: FastAPI, client: TestClient) -> None:
    run = submit(client, CONFIRMED)
    confirmed = run["confirmed_launch"]
    assert confirmed["launch"]["scale"] == "h100-pilot"
    assert client.get(f"/api/v1/runs/{run['id']}").json()["confirmed_launch"] == confirmed
    with transaction(app.state.sessions) as session:
        rows = session.scalars(select(Audit).where(Audit.target == run["id"]).order_by(Audit.id)).all()
        assert [row.action for row in rows] == ["run.submit", "run.confirm_paid_launch"]
        assert rows[1].actor == confirmed["key"]


def test_a_run_without_cost_has_no_confirmation(app: FastAPI, client: TestClient) -> None:
    run = submit(client, {"scale": "smoke", "confirm_paid_launch": True})
    assert run["confirmed_launch"] is None
    with transaction(app.state.sessions) as session:
        assert [row.action for row in session.scalars(select(Audit))] == ["run.submit"]


def test_a_repeated_request_keeps_the_confirmation_of_the_first(client: TestClient) -> None:
    key = {"Idempotency-Key": "k"}
    first = submit(client, CONFIRMED, **key)
    assert submit(client, CONFIRMED, **key) == first
    assert submit(client, PAID, **key) == first


def test_a_run_submitted_again_from_its_own_spec_needs_no_second_question(client: TestClient) -> None:
    spec = submit(client, CONFIRMED)["spec"]
    assert submit(client, spec)["confirmed_launch"]["launch"]["scale"] == "h100-pilot"
