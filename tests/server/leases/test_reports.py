"""Events and checkpoints of a running attempt."""

import json
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.hand import Hand, problem, show, submit


def _events(client: TestClient, run: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    page = client.get(f"/api/v1/runs/{run['id']}/events", params={"limit": 1000}).json()
    return [event for event in page["data"] if event["type"] == kind]


def _log(message: str) -> dict[str, Any]:
    return {"type": "log", "data": {"level": "info", "message": message}}


def test_repeated_batch_changes_nothing(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    assert hand.events(_log("a"), _log("b")).json() == {"last_seq": 2}
    hand.num_events = 0
    assert hand.events(_log("a"), _log("b"), _log("c")).json() == {"last_seq": 3}
    assert [event["data"]["message"] for event in _events(client, run, "log")] == ["a", "b", "c"]


def test_run_sequence_has_no_gap(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    hand.events(_log("a"), _log("b"))
    hand.succeed()
    page = client.get(f"/api/v1/runs/{run['id']}/events", params={"limit": 1000}).json()["data"]
    assert [event["seq"] for event in page] == list(range(1, show(client, run)["last_seq"] + 1))


def test_progress_and_metrics_show_on_the_stage(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    hand.events(
        {"type": "progress", "data": {"step": 3, "total_steps": 10, "unit": "step"}},
        {"type": "metric", "data": {"step": 4, "values": {"loss": 2.5, "note": "x"}}},
    )
    stage = show(client, run)["stages"][0]
    assert (stage["step"], stage["total_steps"], stage["metrics"]) == (4, 10, {"loss": 2.5})


def test_numbers_that_are_none_and_nul_bytes_do_no_harm(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    body = json.dumps(
        {
            "lease_token": hand.claim["lease_token"],
            "epoch": 1,
            "events": [
                {
                    "seq": 1,
                    "time": "2026-01-01T00:00:00Z",
                    "type": "metric",
                    "data": {"step": 1, "values": {"loss": math.nan, "lr": 0.1}, "text": "a\0b"},
                }
            ],
        }
    )
    url = f"/api/v1/worker/attempts/{hand.claim['attempt']}/events"
    answer = worker.post(url, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert _events(client, run, "metric")[0]["data"]["values"] == {"loss": None, "lr": 0.1}
    assert _events(client, run, "metric")[0]["data"]["text"] == "ab"
    assert [
        series["name"] for series in client.get(f"/api/v1/runs/{run['id']}/metrics").json()["series"]
    ] == ["lr"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "state", "data": {"kind": "run", "to": "succeeded"}},
        {"type": "metric", "data": {"step": -1, "values": {}}},
        {"type": "metric", "data": {"step": 1, "values": []}},
        {"type": "log", "time": "2026-01-01T00:00:00"},
    ],
)
def test_event_that_no_stage_writes_is_refused_with_the_whole_batch(
    client: TestClient, worker: TestClient, event: dict[str, Any]
) -> None:
    run = submit(client)
    hand = Hand(worker).take()
    problem(hand.events(_log("before"), event), 422, "invalid_request")
    assert _events(client, run, "log") == []


def test_trainers_own_gate_result_is_marked_as_advice(client: TestClient, worker: TestClient) -> None:
    run = submit(client)
    Hand(worker).take().events({"type": "gate", "data": {"verdict": "approved"}})
    assert _events(client, run, "gate")[0]["data"] == {"verdict": "approved", "advice": True}
    assert show(client, run)["verdict"] is None


def test_checkpoint_becomes_the_resume_point_of_the_next_attempt(
    client: TestClient, worker: TestClient
) -> None:
    submit(client)
    hand = Hand(worker).take()
    files = {"base/resume_checkpoint/model.safetensors": b"w", "base/resume_checkpoint/metadata.json": b"{}"}
    for data in files.values():
        hand.upload(data)
    assert hand.checkpoint(10, files).status_code == 204
    hand.finish("interrupted", 75)
    resume = hand.take().claim["resume"]
    assert resume["step"] == 10
    assert [file["path"] for file in resume["files"]] == list(files)
    assert {file["kind"] for file in resume["files"]} == {"checkpoint"}


def test_resume_point_never_goes_back(client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.upload(b"x")
    for step in (10, 20, 15):
        assert hand.checkpoint(step, {"a": b"x"}).status_code == 204
    hand.finish("interrupted", 75)
    assert hand.take().claim["resume"]["step"] == 20


def test_checkpoint_whose_files_are_not_stored_is_refused(client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    problem(hand.checkpoint(10, {"a": b"never uploaded"}), 422, "not_found")
    hand.finish("interrupted", 75)
    assert hand.take().claim["resume"] is None


def test_checkpoint_event_alone_is_no_resume_point(client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.events({"type": "checkpoint", "data": {"directory": "d", "step": 5, "files": []}})
    hand.finish("interrupted", 75)
    assert hand.take().claim["resume"] is None


def test_checkpoint_with_a_path_outside_is_refused(client: TestClient, worker: TestClient) -> None:
    submit(client)
    hand = Hand(worker).take()
    hand.upload(b"x")
    problem(hand.checkpoint(1, {"../evil": b"x"}), 422, "bad_artifact_path")
