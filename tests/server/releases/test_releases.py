"""Releases: only an approved verdict that still applies becomes one, and lists and look-ups."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_contract.api import Page, ReleaseOut
from picochat_contract.canonical import sha256_hex
from picochat_contract.policies import POLICIES
from picochat_server.auth.repository import lock_project
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.models import Audit
from picochat_server.releases import service as releases
from picochat_server.releases.service import released
from sqlalchemy import select
from support.finished_run import (
    SFT_WEIGHTS,
    FinishedRun,
    approved_files,
    as_json,
    edited,
    eval_report,
    make_finished_run,
    score,
)

RELEASES = "/api/v1/releases"


@pytest.fixture
def approved(app: FastAPI, project_id: str) -> FinishedRun:
    run = make_finished_run(app, project_id, approved_files())
    assert run.decide() == "approved"
    return run


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


def post(client: TestClient, run: FinishedRun, name: str = "helper") -> Answer:
    response = client.post(RELEASES, json={"name": name, "run": run.run_id})
    return Answer(response.status_code, response.json())


def refusal(answer: Answer) -> str:
    assert (answer.status, answer.body["code"]) == (409, "gate_not_passed"), answer
    return str(answer.body["detail"])


def look_up(run: FinishedRun, name_or_run: str) -> int | None:
    with transaction(run.app.state.sessions) as session:
        row = released(session, run.project_id, name_or_run)
        return row.version if row else None


def test_an_approved_run_is_released_and_audited(
    app: FastAPI, client: TestClient, approved: FinishedRun
) -> None:
    response = post(client, approved)
    out = ReleaseOut.model_validate(response.body)
    assert (response.status, out.name, out.version, out.verdict) == (201, "helper", 1, "approved")
    assert out.checkpoint_sha256 == approved.digest(SFT_WEIGHTS)
    with transaction(app.state.sessions) as session:
        row = session.scalars(select(Audit).where(Audit.action == "release.create")).one()
        assert (row.target, row.data["run"]) == (out.id, approved.run_id)


def test_the_same_request_again_makes_no_second_version(client: TestClient, approved: FinishedRun) -> None:
    first, second = post(client, approved), post(client, approved)
    assert (first.status, second.status) == (201, 200)
    assert first.body == second.body


def test_versions_count_per_name(app: FastAPI, client: TestClient, project_id: str) -> None:
    runs = [make_finished_run(app, project_id, approved_files()) for _ in range(2)]
    for run in runs:
        run.decide()
    versions = [post(client, run, name).body["version"] for name in ("a", "b") for run in runs]
    assert versions == [1, 2, 1, 2]


def test_releases_at_once_get_versions_without_gap(app: FastAPI, client: TestClient, project_id: str) -> None:
    runs = [make_finished_run(app, project_id, approved_files()) for _ in range(4)]
    for run in runs:
        run.decide()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda run: post(client, run), runs))
    assert sorted(answer.body["version"] for answer in answers) == [1, 2, 3, 4]


def test_a_blocked_run_is_refused_with_its_blocking_checks(
    app: FastAPI, client: TestClient, project_id: str
) -> None:
    files = approved_files()
    weak = eval_report(approved_subject(files)).model_copy(update={"unsafe_refusal": score(20, 3)})
    run = make_finished_run(app, project_id, files | {layout.EVAL_REPORT: as_json(weak)})
    run.decide()
    assert "is blocked: refusal; GET /api/v1/runs/" in refusal(post(client, run))


def test_a_refusal_names_a_few_checks_only(
    app: FastAPI, client: TestClient, project_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "MAX_NAMED", 3)
    run = make_finished_run(app, project_id, {"corpus.txt": b"nothing else"})
    run.decide()
    blocking = client.get(f"/api/v1/runs/{run.run_id}/gate").json()["report"]["checks"]
    num_blocking = sum(check["status"] == "block" for check in blocking)
    detail = refusal(post(client, run))
    assert f" and {num_blocking - 3} more; GET" in detail
    assert detail.count(",") == 2


def approved_subject(files: dict[str, bytes]) -> str:
    return sha256_hex(files[SFT_WEIGHTS])


def test_a_warning_is_not_approval(app: FastAPI, client: TestClient, project_id: str) -> None:
    files = approved_files()
    files[layout.HONESTY] = edited(files[layout.HONESTY], duplicate_eval_prompts=1)
    run = make_finished_run(app, project_id, files)
    run.decide()
    assert "is warn: duplicate_eval_prompts" in refusal(post(client, run))


def test_a_run_without_a_verdict_is_refused(app: FastAPI, client: TestClient, project_id: str) -> None:
    run = make_finished_run(app, project_id, approved_files())
    assert "has no verdict yet" in refusal(post(client, run))


@pytest.mark.parametrize("path", [SFT_WEIGHTS, layout.EVAL, layout.EVAL_REPORT])
def test_a_byte_changed_after_the_verdict_refuses_the_release(
    client: TestClient, approved: FinishedRun, path: str
) -> None:
    approved.flip_byte(path)
    assert f"the stored bytes of {path} changed" in refusal(post(client, approved))


def test_a_policy_changed_after_the_verdict_refuses_the_release(
    client: TestClient, approved: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    stricter = POLICIES["first_release"].model_copy(update={"version": 99})
    monkeypatch.setitem(POLICIES, "first_release", stricter)
    assert "gate policy 'first_release' is not the one" in refusal(post(client, approved))


def test_a_run_of_another_project_is_not_found(app: FastAPI, client: TestClient) -> None:
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
    run = make_finished_run(app, other, approved_files())
    run.decide()
    assert post(client, run).status == 404


def test_releasing_needs_its_scope(worker: TestClient, approved: FinishedRun) -> None:
    response = post(worker, approved)
    assert (response.status, response.body["code"]) == (403, "forbidden_scope")


@pytest.mark.parametrize("name", ["", "UPPER", "../up", "a b", "x" * 64])
def test_an_odd_name_is_refused(client: TestClient, approved: FinishedRun, name: str) -> None:
    response = post(client, approved, name)
    assert (response.status, response.body["code"]) == (422, "invalid_request")


def test_the_list_is_newest_first_and_goes_on_where_it_stopped(
    client: TestClient, approved: FinishedRun
) -> None:
    for name in ("a", "b", "c"):
        post(client, approved, name)
    first = Page[ReleaseOut].model_validate(client.get(RELEASES, params={"limit": 2}).json())
    assert ([row.name for row in first.data], first.has_more) == (["c", "b"], True)
    rest = Page[ReleaseOut].model_validate(client.get(RELEASES, params={"after": first.next}).json())
    assert ([row.name for row in rest.data], rest.has_more, rest.next) == (["a"], False, None)


def test_a_release_is_found_by_name_and_by_run(client: TestClient, approved: FinishedRun) -> None:
    assert look_up(approved, "helper") is None
    post(client, approved)
    assert look_up(approved, "helper") == look_up(approved, approved.run_id) == 1


def test_a_release_lapses_with_its_policy(
    client: TestClient, approved: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(client, approved)
    monkeypatch.delitem(POLICIES, "first_release")
    assert look_up(approved, "helper") is None


def test_a_name_of_another_project_is_not_found(
    app: FastAPI, client: TestClient, approved: FinishedRun
) -> None:
    post(client, approved)
    with transaction(app.state.sessions) as session:
        other = ensure_project(session, "other").id
        assert released(session, other, "helper") is None
        assert released(session, other, approved.run_id) is None


def test_a_release_under_way_holds_up_nobody_else(app: FastAPI, client: TestClient, project_id: str) -> None:
    """Rows that refer to the project go on being written while a release hashes its files."""
    if app.state.engines[0].dialect.name == "sqlite":
        pytest.skip("SQLite has one writer at a time whatever is locked")
    with transaction(app.state.sessions) as session:
        lock_project(session, project_id)
        assert client.post("/api/v1/runs", json={"name": "other", "scale": "smoke"}).status_code == 201
