"""Reading what honesty and preflight found."""

import json

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from support.apps import client_with, new_key, new_project
from support.finished_run import approved_files, make_finished_run
from support.hand import SMOKE, Hand, problem, submit


def test_before_the_stages_have_finished_there_is_nothing(client: TestClient) -> None:
    run = submit(client, SMOKE)["id"]
    problem(client.get(f"/api/v1/runs/{run}/preflight"), 404, "preflight_not_ready")
    problem(client.get(f"/api/v1/runs/{run}/honesty"), 404, "honesty_not_ready")


def test_honesty_is_there_before_the_audit(client: TestClient, worker: TestClient) -> None:
    run = submit(client, SMOKE)["id"]
    Hand(worker).run_until("preflight")
    found = client.get(f"/api/v1/runs/{run}/honesty").json()
    assert (found["run"], found["report"], found["audit"]) == (run, {"status": "ready"}, None)


def test_both_reports_are_shown_as_stored(app: FastAPI, client: TestClient, project_id: str) -> None:
    files = approved_files()
    run = make_finished_run(app, project_id, files)
    found = client.get(f"/api/v1/runs/{run.run_id}/honesty").json()
    assert found["report"] == json.loads(files[layout.HONESTY])
    assert found["audit"] == json.loads(files[layout.AUDIT])
    assert (found["sha256"], found["audit_sha256"]) == (run.digest(layout.HONESTY), run.digest(layout.AUDIT))


def test_changed_or_odd_bytes_are_not_shown(app: FastAPI, client: TestClient, project_id: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    run.flip_byte(layout.AUDIT)
    problem(client.get(f"/api/v1/runs/{run.run_id}/honesty"), 409, "input_changed")
    odd = make_finished_run(app, project_id, {layout.HONESTY: b"[]"})
    problem(client.get(f"/api/v1/runs/{odd.run_id}/honesty"), 409, "input_changed")


def test_another_project_sees_nothing(app: FastAPI, project_id: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    for what in ("preflight", "honesty"):
        problem(stranger.get(f"/api/v1/runs/{run.run_id}/{what}"), 404, "not_found")
