"""GET runs/{run}/gate."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.api import GateOut
from picochat_server.artifacts.store import LocalStore
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.gates.signing import verify
from support.finished_run import approved_files, make_finished_run
from support.hand import SMOKE, Hand, problem, submit


def test_gate_is_answered_with_report_and_signature(
    app: FastAPI, client: TestClient, project_id: str
) -> None:
    run = make_finished_run(app, project_id, approved_files())
    run.decide()
    response = client.get(f"/api/v1/runs/{run.run_id}/gate")
    out = GateOut.model_validate(response.json())
    assert (response.status_code, out.run, out.report.verdict) == (200, run.run_id, "approved")
    assert verify("test secret", response.json()["report"], out.signature)


def test_before_the_gate_there_is_no_verdict(app: FastAPI, client: TestClient, project_id: str) -> None:
    run = make_finished_run(app, project_id, {})
    response = client.get(f"/api/v1/runs/{run.run_id}/gate")
    assert (response.status_code, response.json()["code"]) == (404, "gate_not_ready")


def test_the_newest_verdict_is_answered(app: FastAPI, client: TestClient, project_id: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    run.decide()
    run.flip_byte("eval_benchmark.jsonl")
    run.decide()
    assert client.get(f"/api/v1/runs/{run.run_id}/gate").json()["report"]["verdict"] == "blocked"


def test_a_run_of_another_project_is_not_found(app: FastAPI, client: TestClient) -> None:
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    run = make_finished_run(app, other, approved_files())
    run.decide()
    response = client.get(f"/api/v1/runs/{run.run_id}/gate")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_reading_needs_its_scope(app: FastAPI, worker: TestClient, project_id: str) -> None:
    run = make_finished_run(app, project_id, {})
    response = worker.get(f"/api/v1/runs/{run.run_id}/gate")
    assert (response.status_code, response.json()["code"]) == (403, "forbidden_scope")


def test_large_files_are_hashed_before_the_transaction(
    app: FastAPI, client: TestClient, worker: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finish that hashes a checkpoint under its locks would hold up every other writer meanwhile."""
    hand = submitted_until_gate(client, worker)
    connections: list[int] = []
    real = LocalStore.hash_ahead

    def note(store: LocalStore, digest: str) -> None:
        connections.append(sum(engine.pool.checkedout() for engine in app.state.engines))
        real(store, digest)

    monkeypatch.setattr(LocalStore, "hash_ahead", note)
    assert hand.succeed().status_code == 204
    assert connections == [0, 0, 0], "corpus manifest, chat and eval; these runs have no weights"
    connections.clear()
    answer = client.post("/api/v1/releases", json={"name": "x", "run": hand.claim["run"]})
    problem(answer, 409, "gate_not_passed")
    assert connections == [0, 0, 0]


def submitted_until_gate(client: TestClient, worker: TestClient) -> Hand:
    submit(client, SMOKE)
    return Hand(worker).run_until("gate")
