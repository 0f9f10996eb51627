"""Text and numbers that a database cannot hold are the caller's fault on every route, never a 500.

Postgres refuses NUL and integers beyond a column, SQLite's driver refuses lone surrogates and integers beyond 64
bits: a test on one of them alone would show half of it.
"""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from support.hand import Hand, problem, submit

V1 = "/api/v1"
ODD = ["\0", "run_\0", "a\nb", "run_0123456789abcdefgh\n", "\u00e9", "'", "x" * 3000]
PATHS = [
    f"GET {V1}/runs/ODD",
    f"POST {V1}/runs/ODD/cancel",
    f"GET {V1}/runs/ODD/events",
    f"GET {V1}/runs/ODD/events/stream",
    f"GET {V1}/runs/ODD/metrics",
    f"GET {V1}/runs/ODD/gate",
    f"GET {V1}/runs/ODD/artifacts",
    f"GET {V1}/runs/ODD/artifacts/corpus.txt",
    f"GET {V1}/artifacts/ODD",
    f"PUT {V1}/artifacts/ODD",
    f"DELETE {V1}/keys/ODD",
    "GET /v1/models/ODD",
    f"GET {V1}/runs?after=ODD",
    f"GET {V1}/keys?after=ODD",
    f"GET {V1}/workers?after=ODD",
    f"GET {V1}/releases?after=ODD",
]
FENCE = {"lease_token": "0" * 64, "epoch": 1}
WORKER_CALLS: dict[str, dict[str, Any]] = {
    "heartbeat": FENCE,
    "events": {**FENCE, "events": []},
    "checkpoint": {**FENCE, "checkpoint": {"directory": "base", "step": 1, "files": []}},
    "finish": {**FENCE, "outcome": "failed", "exit_code": 1},
}


@pytest.fixture
def faulty(app: FastAPI, admin_key: str) -> TestClient:
    """Answers 500 as a real server does, where the other client raises."""
    headers = {"Authorization": f"Bearer {admin_key}"}
    return TestClient(app, base_url="http://127.0.0.1:7460", headers=headers, raise_server_exceptions=False)


def post(client: TestClient, path: str, body: dict[str, Any]) -> httpx.Response:
    """As JSON in ASCII: httpx's own cannot send a lone surrogate or a NaN."""
    return client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("route", PATHS)
def test_odd_text_in_an_address_is_the_callers_fault(faulty: TestClient, route: str) -> None:
    method, path = route.split()
    answers = {
        text: faulty.request(method, path.replace("ODD", quote(text, safe=""))).status_code for text in ODD
    }
    assert [(text, status) for text, status in answers.items() if status >= 500] == []
    if "after" not in route:
        assert set(answers.values()) <= {404, 422}


@pytest.mark.parametrize("verb", WORKER_CALLS)
@pytest.mark.parametrize("attempt", ODD)
def test_odd_attempt_has_no_lease(faulty: TestClient, verb: str, attempt: str) -> None:
    answer = faulty.post(f"{V1}/worker/attempts/{quote(attempt, safe='')}/{verb}", json=WORKER_CALLS[verb])
    assert (answer.status_code, answer.json()["code"]) == (409, "lease_lost")


@pytest.mark.parametrize("verb", WORKER_CALLS)
@pytest.mark.parametrize(
    "change",
    [
        {"lease_token": "\0"},
        {"lease_token": "t\u00f6ken"},
        {"lease_token": "\ud800"},
        {"epoch": 2**31},
        {"epoch": 2**80},
    ],
    ids=["NUL", "not ASCII", "surrogate", "32 bits", "80 bits"],
)
def test_odd_fence_holds_nothing(
    faulty: TestClient, client: TestClient, verb: str, change: dict[str, Any]
) -> None:
    submit(client)
    hand = Hand(faulty).take()
    body = {**WORKER_CALLS[verb], "lease_token": hand.claim["lease_token"], **change}
    answer = post(faulty, f"{V1}/worker/attempts/{hand.claim['attempt']}/{verb}", body)
    assert answer.status_code in (409, 422), answer.text


@pytest.mark.parametrize("token", [b"t\xf6ken", b"\xff" * 64])
def test_odd_lease_header_holds_nothing(faulty: TestClient, client: TestClient, token: bytes) -> None:
    submit(client)
    attempt = Hand(faulty).take().claim["attempt"]
    headers = {"Picochat-Lease": token, "Picochat-Attempt": attempt.encode()}
    assert faulty.put(f"{V1}/artifacts/{'0' * 64}", content=b"x", headers=headers).status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("runs", {"name": "a", "\ud800": 1}),
        ("runs", {"name": "a\0"}),
        ("runs", {"name": "a", "dataset": {"sources": [{"type": "file", "path": "\0\ud800"}]}}),
        ("keys", {"name": "a\0", "scopes": ["infer"]}),
        ("keys", {"name": "\ud800", "scopes": ["infer"]}),
        ("releases", {"name": "m", "run": "run_\0"}),
        ("releases", {"name": "m", "run": "\ud800"}),
        ("worker/claims", {"worker": "w\0", "host": "h", "device": "cpu"}),
        ("worker/claims", {"worker": "w", "host": "h\0", "device": "cpu"}),
        ("worker/claims", {"worker": "w", "host": "h", "device": "cpu", "stage": "\0"}),
        ("artifacts/missing", {"digests": ["\0"]}),
    ],
)
def test_odd_text_in_a_body_is_the_callers_fault(faulty: TestClient, path: str, body: dict[str, Any]) -> None:
    answer = post(faulty, f"{V1}/{path}", body)
    assert answer.status_code < 500, answer.text


@pytest.mark.parametrize("name", ["\0", "\ud800", "x" * 100_000])
def test_odd_model_name_is_unknown(app: FastAPI, faulty: TestClient, name: str) -> None:
    app.state.model_host = None  # which a running server has; it is not asked for a name that nothing has
    answer = post(faulty, "/v1/completions", {"model": name, "prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("number", [2**31, 2**80])
def test_number_beyond_a_column_is_the_callers_fault(
    faulty: TestClient, client: TestClient, number: int
) -> None:
    run = submit(client)["id"]
    hand = Hand(faulty).take()
    answers = [
        faulty.get(f"{V1}/runs/{run}/events?after={number}"),
        hand.heartbeat(step=number),
        hand.events({"type": "log", "seq": number}),
        hand.events({"type": "metric", "data": {"step": 1, "values": {"loss": 10**400}}}),
        hand.finish("failed", number),
    ]
    assert [answer.status_code for answer in answers if answer.status_code >= 500] == []


def test_numbers_that_are_none_do_not_reach_a_run(client: TestClient, worker: TestClient) -> None:
    run = submit(client)["id"]
    hand = Hand(worker).take()
    body = {
        "lease_token": hand.claim["lease_token"],
        "epoch": hand.claim["epoch"],
        "outcome": "succeeded",
        "exit_code": 0,
        "manifest": hand.manifest({}, loss=float("nan"), val_bpb=2.5),
    }
    answer = post(worker, f"{V1}/worker/attempts/{hand.claim['attempt']}/finish", body)
    assert "manifest.metrics.loss" in problem(answer, 422, "invalid_request")["detail"]
    assert client.get(f"{V1}/runs/{run}").json()["metrics"] == {}
