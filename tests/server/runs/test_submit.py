"""Submit: what is accepted, what is refused, and that one Idempotency-Key makes one run."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.stages import StageName
from picochat_server.db import transaction
from picochat_server.models import Audit, Outbox, Run
from sqlalchemy import func, select
from support.hand import SMOKE, UNGATED, problem, sha256, states, submit


def test_submitted_run_has_its_stages_and_only_the_first_is_queued(client: TestClient) -> None:
    run = submit(client, SMOKE)
    assert run["state"] == "queued"
    assert run["current_stage"] == "dataset"
    assert states(run) == {name.value: "pending" for name in StageName} | {"dataset": "queued"}


def test_submit_leaves_a_hint_and_an_audit_row(app: FastAPI, client: TestClient) -> None:
    run = submit(client)
    with transaction(app.state.sessions) as session:
        assert session.scalars(select(Outbox.stage_id)).all() == [run["stages"][0]["id"]]
        audit = session.scalars(select(Audit)).one()
        assert (audit.action, audit.target) == ("run.submit", run["id"])


@pytest.mark.parametrize(
    ("spec", "code", "hint"),
    [
        ({"base": {"model": {"n_embed": 64}}}, "unknown_key", "did you mean 'n_embd'"),
        ({"base": {"model": {"n_embd": 130, "n_head": 4}}}, "invalid_shape", "n_embd=132"),
        ({"base": {"max_steps": "many"}}, "invalid_value", "'many'"),
        ({"scale": "huge"}, "invalid_value", "known"),
        (
            {"resources": {"nnodes": 2, "rdzv_endpoint": "gpu-1:29500"}},
            "invalid_value",
            "a worker claims a stage for one machine",
        ),
        (
            {"dataset": {"sources": [{"type": "file", "path": "/etc/passwd"}]}},
            "source_not_uploaded",
            "upload",
        ),
        (
            {"dataset": {"sources": [{"type": "artifact", "digest": "0" * 64, "name": "a.txt"}]}},
            "source_not_uploaded",
            "PUT",
        ),
    ],
)
def test_bad_spec_is_refused_with_its_own_code(
    client: TestClient, spec: object, code: str, hint: str
) -> None:
    assert hint in problem(client.post("/api/v1/runs", json=spec), 422, code)["detail"]


@pytest.mark.parametrize("body", [b"[]", b"{", b""])
def test_body_that_is_no_mapping_is_an_invalid_request(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/v1/runs", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, "invalid_request")


def test_uploaded_source_is_accepted_and_named_in_the_claim(client: TestClient, worker: TestClient) -> None:
    data = b"a line of text\n" * 100
    assert client.put(f"/api/v1/artifacts/{sha256(data)}", content=data).status_code == 201
    source = {"type": "artifact", "digest": sha256(data), "name": "a.txt"}
    submit(client, {**UNGATED, "dataset": {"sources": [source, source]}})
    body = {"worker": "w", "host": "h", "device": "cpu"}
    assert worker.post("/api/v1/worker/claims", json=body).json()["sources"] == [sha256(data)]


def test_same_key_gives_the_same_run(client: TestClient) -> None:
    first = submit(client, UNGATED, **{"Idempotency-Key": "k1"})
    assert submit(client, UNGATED, **{"Idempotency-Key": "k1"}) == first
    assert submit(client, UNGATED, **{"Idempotency-Key": "k2"})["id"] != first["id"]


def test_same_key_with_another_spec_is_a_conflict(client: TestClient) -> None:
    submit(client, UNGATED, **{"Idempotency-Key": "k1"})
    answer = client.post("/api/v1/runs", json={"scale": "smoke"}, headers={"Idempotency-Key": "k1"})
    problem(answer, 422, "idempotency_conflict")


def test_overlong_key_is_refused(client: TestClient) -> None:
    answer = client.post("/api/v1/runs", json=UNGATED, headers={"Idempotency-Key": "k" * 256})
    problem(answer, 422, "invalid_request")


def test_hundred_parallel_posts_with_one_key_make_one_run(app: FastAPI, client: TestClient) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = client.post("/api/v1/runs", json=UNGATED, headers={"Idempotency-Key": "same"})
        return answer.status_code, answer.json().get("id", answer.text)

    with ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(post, range(100)))
    assert len(answers) == 1, answers
    assert answers.pop()[0] == 201
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).select_from(Run)) == 1
        assert session.scalar(select(func.count()).select_from(Outbox)) == 1
