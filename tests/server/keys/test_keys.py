"""Keys: shown once, stored as a digest, listed without it, dead the moment they are revoked or expire."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract.canonical import sha256_hex
from picochat_server.auth.service import make_key
from picochat_server.db import transaction
from picochat_server.models import ApiKey, Audit
from sqlalchemy import select
from support.apps import client_with, new_key, new_project
from support.hand import problem


def test_key_is_shown_once_and_kept_as_a_digest(app: FastAPI, client: TestClient) -> None:
    made = client.post("/api/v1/keys", json={"name": "ci", "scopes": ["runs:read", "runs:write"]})
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("pk_")
    with transaction(app.state.sessions) as session:
        row = session.scalars(select(ApiKey).where(ApiKey.name == "ci")).one()
        assert row.secret_sha256 == sha256_hex(secret)
    listed = client.get("/api/v1/keys")
    assert secret not in listed.text
    assert [key["secret"] for key in listed.json()["data"]] == [None, None]
    assert client_with(app, secret).get("/api/v1/runs").status_code == 200


def test_revoked_key_stops_at_once(app: FastAPI, client: TestClient) -> None:
    made = client.post("/api/v1/keys", json={"name": "ci", "scopes": ["runs:read"]}).json()
    owner = client_with(app, made["secret"])
    assert owner.get("/api/v1/runs").status_code == 200
    first = client.delete(f"/api/v1/keys/{made['id']}").json()
    assert first["revoked_at"] is not None
    problem(owner.get("/api/v1/runs"), 401, "unauthenticated")
    assert client.delete(f"/api/v1/keys/{made['id']}").json() == first


def test_expired_key_is_refused(app: FastAPI, project_id: str) -> None:
    with transaction(app.state.sessions) as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        _, secret = make_key(session, project_id, "old", ["admin"], past)
    problem(client_with(app, secret).get("/api/v1/runs"), 401, "unauthenticated")


def test_expiry_is_set_in_days(client: TestClient) -> None:
    body = {"name": "ci", "scopes": ["infer"], "expires_in_days": 7}
    made = client.post("/api/v1/keys", json=body).json()
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left <= timedelta(days=7)


@pytest.mark.parametrize(
    "body",
    [{"name": "x", "scopes": []}, {"name": "", "scopes": ["infer"]}, {"name": "x", "scopes": ["root"]}],
)
def test_odd_key_is_an_invalid_request(client: TestClient, body: dict[str, object]) -> None:
    problem(client.post("/api/v1/keys", json=body), 422, "invalid_request")


def test_keys_of_another_project_are_out_of_reach(app: FastAPI, client: TestClient) -> None:
    mine = client.get("/api/v1/keys").json()["data"][0]["id"]
    stranger = client_with(app, new_key(app, new_project(app, "other"), "admin"))
    problem(stranger.delete(f"/api/v1/keys/{mine}"), 404, "not_found")
    assert mine not in stranger.get("/api/v1/keys").text
    assert client.get("/api/v1/keys").status_code == 200


def test_changes_of_keys_are_audited(app: FastAPI, client: TestClient) -> None:
    made = client.post("/api/v1/keys", json={"name": "ci", "scopes": ["infer"]}).json()
    client.delete(f"/api/v1/keys/{made['id']}")
    with transaction(app.state.sessions) as session:
        rows = session.scalars(select(Audit).order_by(Audit.id)).all()
    assert [(row.action, row.target) for row in rows] == [
        ("key.create", made["id"]),
        ("key.revoke", made["id"]),
    ]
    assert made["secret"] not in str([row.data for row in rows])
