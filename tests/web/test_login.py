"""The way in and out: keys, cookies, revoked keys, forms of other sites, and where a login leads."""

from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.auth import repository
from picochat_server.db import transaction
from picochat_server.models import Run
from picochat_server.pages import session as browser_session
from sqlalchemy import select
from support import seeded_runs as seed
from support.visitors import BASE_URL, Key, browser, log_in, new_key


def test_a_page_without_a_session_leads_to_the_login_and_back(anonymous: TestClient) -> None:
    answer = anonymous.get("/runs/run_x?seq=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fruns%2Frun_x%3Fseq%3D1"


def test_a_right_key_opens_the_page_that_was_asked_for(anonymous: TestClient, key: Key) -> None:
    answer = anonymous.post("/login", data={"key": f" {key.secret}\n", "next": "/?state=failed"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?state=failed")
    assert anonymous.get("/").status_code == 200
    assert anonymous.get("/login?next=/runs/x").headers["location"] == "/runs/x"


@pytest.mark.parametrize("secret", ["", "pk_wrong", "something else", "pk_" + "a" * 43])
def test_a_wrong_key_is_refused_and_said(anonymous: TestClient, secret: str) -> None:
    answer = anonymous.post("/login", data={"key": secret})
    assert answer.status_code == 401
    assert "This key is not valid" in answer.text
    assert "set-cookie" not in answer.headers
    assert anonymous.get("/").status_code == 303


def test_the_cookie_is_closed_to_scripts_and_other_sites(anonymous: TestClient, key: Key) -> None:
    cookie = anonymous.post("/login", data={"key": key.secret}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert key.secret.lower() not in cookie


def test_the_cookie_is_secure_over_https(app: FastAPI, key: Key) -> None:
    client = browser(app, "https://127.0.0.1:7460")
    assert "secure" in client.post("/login", data={"key": key.secret}).headers["set-cookie"].lower()


def test_a_forged_cookie_is_no_session(anonymous: TestClient, key: Key) -> None:
    anonymous.post("/login", data={"key": key.secret})
    value = anonymous.cookies[browser_session.COOKIE]
    anonymous.cookies.clear()
    anonymous.cookies.set(browser_session.COOKIE, "e30" + value[3:])
    assert anonymous.get("/").status_code == 303


def test_revoking_the_key_ends_the_session(
    app: FastAPI, logged_in: TestClient, key: Key, project_id: str
) -> None:
    assert logged_in.get("/").status_code == 200
    with transaction(app.state.sessions) as session:
        assert repository.revoke(session, project_id, key.id, datetime.now(UTC))
    assert logged_in.get("/").headers["location"] == "/login"


def test_an_expired_key_ends_the_session(app: FastAPI, project_id: str) -> None:
    soon = datetime.now(UTC) + timedelta(milliseconds=400)
    client = log_in(app, new_key(app, project_id, "admin", expires_at=soon))
    while datetime.now(UTC) <= soon:
        pass
    assert client.get("/").status_code == 303


def test_an_old_session_ends(logged_in: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_session, "MAX_AGE_SECONDS", -1)
    assert logged_in.get("/").status_code == 303


def test_logout_ends_the_session(logged_in: TestClient) -> None:
    assert logged_in.post("/logout").headers["location"] == "/login"
    assert logged_in.get("/").status_code == 303


@pytest.mark.parametrize("path", ["/login", "/logout", "/runs/run_x/cancel"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:7461"},
        {"Origin": BASE_URL + ".evil.example"},
        {"Origin": "", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_a_form_of_another_site_is_refused(logged_in: TestClient, path: str, headers: dict[str, str]) -> None:
    answer = logged_in.post(path, headers=headers, data={"key": "x"})
    assert answer.status_code == 403
    assert "cross_origin" in answer.text
    assert logged_in.get("/").status_code == 200


@pytest.mark.parametrize(("site", "status"), [("same-origin", 303), ("cross-site", 403), (None, 403)])
def test_without_an_origin_the_fetch_metadata_decides(
    app: FastAPI, key: Key, site: str | None, status: int
) -> None:
    client = browser(app)
    del client.headers["Origin"]
    headers = {"Sec-Fetch-Site": site} if site else {}
    assert client.post("/login", data={"key": key.secret}, headers=headers).status_code == status


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        "evil",
        "",
        "/\t/evil.example",
        "/login",
        "/logout",
    ],
)
def test_a_login_never_leads_away(anonymous: TestClient, key: Key, target: str) -> None:
    answer = anonymous.post("/login", data={"key": key.secret, "next": target})
    assert answer.headers["location"] == "/"


def test_cancelling_needs_the_scope_to_write(app: FastAPI, project_id: str) -> None:
    run_id = seed.running(app, project_id, "nightly")
    reader = log_in(app, new_key(app, project_id, "runs:read"))
    assert "Cancel run" not in reader.get(f"/runs/{run_id}").text
    answer = reader.post(f"/runs/{run_id}/cancel")
    assert answer.status_code == 403
    assert "runs:write" in answer.text
    with transaction(app.state.sessions) as session:
        assert session.scalars(select(Run.desired_state)).all() == ["running"]


def test_cancelling_comes_back_to_the_run(app: FastAPI, logged_in: TestClient, project_id: str) -> None:
    run_id = seed.running(app, project_id, "nightly")
    answer = logged_in.post(f"/runs/{run_id}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{run_id}")
    assert "cancelling" in logged_in.get(f"/runs/{run_id}").text


def test_a_key_that_may_not_read_runs_is_told_so(app: FastAPI, project_id: str) -> None:
    answer = log_in(app, new_key(app, project_id, "infer")).get("/")
    assert answer.status_code == 403
    assert "runs:read" in answer.text
