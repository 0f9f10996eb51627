"""GET runs/{run}/gate."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.api import GateOut
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.gates.signing import verify
from support.finished_run import approved_files, make_finished_run


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
