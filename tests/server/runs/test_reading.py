"""Lists, events and metrics of runs."""

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.apps import client_with, new_key, new_project
from support.hand import UNGATED, Hand, problem, submit


def test_runs_come_newest_first_page_by_page(client: TestClient) -> None:
    made = [submit(client)["id"] for _ in range(5)]
    seen: list[str] = []
    after = None
    while True:
        page = client.get("/api/v1/runs", params={"limit": 2} | ({"after": after} if after else {})).json()
        seen += [run["id"] for run in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert seen == made[::-1]
    assert after is None


def test_runs_can_be_filtered_by_state(client: TestClient, worker: TestClient) -> None:
    first = submit(client)["id"]
    submit(client)
    Hand(worker).take()
    running = client.get("/api/v1/runs", params={"state": "running"}).json()["data"]
    assert [(run["id"], run["current_stage"]) for run in running] == [(first, "dataset")]


@pytest.mark.parametrize("query", [{"after": "run_nowhere"}, {"limit": 0}, {"limit": 1001}, {"state": "odd"}])
def test_bad_page_is_an_invalid_request(client: TestClient, query: dict[str, Any]) -> None:
    problem(client.get("/api/v1/runs", params=query), 422, "invalid_request")


@pytest.mark.parametrize("path", ["", "/events", "/events/stream", "/metrics", "/artifacts", "/gate"])
def test_run_of_another_project_is_not_found(app: FastAPI, client: TestClient, path: str) -> None:
    run = submit(client)["id"]
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    problem(stranger.get(f"/api/v1/runs/{run}{path}"), 404, "not_found")
    assert stranger.get("/api/v1/runs").json()["data"] == []


def test_stranger_cannot_cancel(app: FastAPI, client: TestClient) -> None:
    run = submit(client)["id"]
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    problem(stranger.post(f"/api/v1/runs/{run}/cancel"), 404, "not_found")


def test_events_go_on_after_a_sequence_number(client: TestClient, worker: TestClient) -> None:
    run = submit(client)["id"]
    Hand(worker).take().succeed()
    everything = client.get(f"/api/v1/runs/{run}/events", params={"limit": 1000}).json()
    assert not everything["has_more"]
    first = client.get(f"/api/v1/runs/{run}/events", params={"limit": 3}).json()
    assert (first["has_more"], first["next"]) == (True, "3")
    rest = client.get(f"/api/v1/runs/{run}/events", params={"after": 3, "limit": 1000}).json()
    assert first["data"] + rest["data"] == everything["data"]


def test_metrics_are_thinned_and_keep_their_last_point(client: TestClient, worker: TestClient) -> None:
    run = submit(client)["id"]
    hand = Hand(worker).take()
    for start in range(0, 1300, 650):
        hand.events(*[_metric(step, float(step)) for step in range(start, start + 650)])
    (series,) = client.get(f"/api/v1/runs/{run}/metrics").json()["series"]
    assert (series["stage"], series["name"]) == ("dataset", "loss")
    assert 400 < len(series["steps"]) <= 500
    assert series["steps"] == sorted(set(series["steps"]))
    assert (series["steps"][-1], series["values"][-1]) == (1299, 1299.0)


def test_resumed_attempts_points_replace_the_older_ones(client: TestClient, worker: TestClient) -> None:
    run = submit(client)["id"]
    hand = Hand(worker).take()
    hand.events(*[_metric(step, 1.0) for step in (1, 2, 3)])
    hand.finish("interrupted", 75)
    hand.take().events(*[_metric(step, 2.0) for step in (2, 3, 4)])
    (series,) = client.get(f"/api/v1/runs/{run}/metrics").json()["series"]
    assert list(zip(series["steps"], series["values"], strict=True)) == [(1, 1), (2, 2), (3, 2), (4, 2)]


def test_schema_of_a_spec_is_open_and_names_every_key(app: FastAPI) -> None:
    schema = client_with(app, None).get("/api/v1/schema/run-spec").json()
    assert set(UNGATED) <= set(schema["properties"])


def _metric(step: int, value: float) -> dict[str, Any]:
    return {"type": "metric", "data": {"step": step, "values": {"loss": value}}}
