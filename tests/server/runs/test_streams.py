"""Server-sent events: the same rows as the list, resumable, ended by the run's end, holding no connection."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.hand import Hand, problem, submit
from support.live import Live, serving_app


@pytest.fixture
def live(app: FastAPI) -> Iterator[Live]:
    with serving_app(app) as live:
        yield live


def _parse(text: str) -> list[dict[str, Any]]:
    """The events of a stream's text, comments left out."""
    blocks = [block for block in text.split("\n\n") if "data: " in block]
    return [
        dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        for block in blocks
    ]


def _finished_run(client: TestClient, worker: TestClient) -> str:
    run = str(submit(client)["id"])
    Hand(worker).run_all()
    return run


def test_stream_of_a_finished_run_gives_every_event_and_ends(client: TestClient, worker: TestClient) -> None:
    run = _finished_run(client, worker)
    answer = client.get(f"/api/v1/runs/{run}/events/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    listed = client.get(f"/api/v1/runs/{run}/events", params={"limit": 1000}).json()["data"]
    events = _parse(answer.text)
    assert [json.loads(event["data"]) for event in events] == listed
    assert [int(event["id"]) for event in events] == [event["seq"] for event in listed]
    assert {event["event"] for event in events} == {"state"}


@pytest.mark.parametrize("how", ["header", "query"])
def test_stream_resumes_after_the_last_event_seen(client: TestClient, worker: TestClient, how: str) -> None:
    run = _finished_run(client, worker)
    url = f"/api/v1/runs/{run}/events/stream"
    answer = (
        client.get(url, headers={"Last-Event-ID": "4"})
        if how == "header"
        else client.get(url, params={"after": 4})
    )
    assert int(_parse(answer.text)[0]["id"]) == 5


def test_odd_last_event_id_is_refused(client: TestClient) -> None:
    run = submit(client)["id"]
    answer = client.get(f"/api/v1/runs/{run}/events/stream", headers={"Last-Event-ID": "five"})
    problem(answer, 422, "invalid_request")


def test_cut_streams_put_together_equal_the_list(client: TestClient, worker: TestClient, live: Live) -> None:
    """A reader that is cut off after every third event misses none and sees none twice."""
    run = str(submit(client)["id"])
    producer = threading.Thread(target=lambda: Hand(worker).run_all())
    producer.start()
    seen: list[int] = []
    while True:
        headers = {**client.headers, "Last-Event-ID": str(seen[-1] if seen else 0)}
        got = 0
        with httpx.stream(
            "GET", f"{live.url}/api/v1/runs/{run}/events/stream", headers=headers, timeout=20
        ) as answer:
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    seen.append(int(line[4:]))
                    got += 1
                if got == 3:
                    break
        if got < 3:
            break
    producer.join()
    listed = client.get(f"/api/v1/runs/{run}/events", params={"limit": 1000}).json()["data"]
    assert seen == [event["seq"] for event in listed]


def test_open_streams_hold_no_connection_and_end_when_the_server_stops(
    app: FastAPI, client: TestClient, live: Live
) -> None:
    run = submit(client)["id"]
    url = f"{live.url}/api/v1/runs/{run}/events/stream"
    opened = threading.Barrier(21)

    def follow() -> str:
        with httpx.stream("GET", url, headers=client.headers, timeout=20) as answer:
            lines = answer.iter_lines()
            first = next(line for line in lines if line.startswith("id: "))
            opened.wait(20)
            list(lines)  # until the server ends it
            return first

    with ThreadPoolExecutor(20) as pool:
        streams = [pool.submit(follow) for _ in range(20)]
        opened.wait(20)
        samples = [[engine.pool.checkedout() for engine in app.state.engines] for _ in _for_a_second()]
        busy = sum(any(sample) for sample in samples) / len(samples)
        assert [0, 0] in samples
        assert busy < 0.9, "a poll takes a connection for a moment only"
        assert httpx.get(f"{live.url}/api/v1/runs", headers=client.headers, timeout=10).status_code == 200
        took = live.stop()
        assert {stream.result(10) for stream in streams} == {"id: 1"}
    assert took < 8, "shorter than the patience for open connections"
    assert [engine.pool.checkedout() for engine in app.state.engines] == [0, 0]


def _for_a_second() -> Iterator[None]:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)
