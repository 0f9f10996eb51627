"""Errors have the shape that a path's readers expect, and never show what is inside the server."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from picochat_contract.errors import Code, ContractError
from picochat_server.app import create_app, dispose
from picochat_server.problems import ApiProblem
from picochat_server.settings import Settings
from sqlalchemy.exc import OperationalError
from support.apps import client_with
from support.hand import problem

RAISED = {
    "contract": ContractError(Code.BAD_DIGEST, "this is no digest at all, send another", param="sha256"),
    "problem": ApiProblem(418, Code.INTERNAL, "a teapot cannot answer this request"),
    "database": OperationalError("SELECT secret", {}, Exception("database is locked")),
    "fault": RuntimeError("the secret is 42"),
}


@pytest.fixture
def app(tmp_path: object, settings: Settings) -> Iterator[FastAPI]:
    app = create_app(settings)
    for prefix in ("/api/v1", "/v1", ""):
        app.add_api_route(prefix + "/raise/{name}", _raise)
    yield app
    dispose(app)


@pytest.fixture
def database_url() -> str:
    return ""


def _raise(name: str) -> None:
    raise RAISED[name]


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("contract", 422, "bad_digest"),
        ("problem", 418, "internal"),
        ("database", 503, "database_busy"),
        ("fault", 500, "internal"),
    ],
)
def test_error_becomes_a_problem(app: FastAPI, name: str, status: int, code: str) -> None:
    client = client_with(app, None, raise_server_exceptions=False)
    answer = client.get(f"/api/v1/raise/{name}")
    assert "secret" not in str(problem(answer, status, code))
    assert answer.headers["X-Request-ID"]


def test_busy_database_says_when_to_come_back(app: FastAPI) -> None:
    assert client_with(app, None).get("/api/v1/raise/database").headers["Retry-After"] == "1"


def test_v1_keeps_openais_shape(app: FastAPI) -> None:
    answer = client_with(app, None).get("/v1/raise/contract")
    assert answer.json() == {
        "error": {
            "message": "this is no digest at all, send another",
            "type": "invalid_request_error",
            "param": "sha256",
            "code": "bad_digest",
        }
    }


def test_browser_gets_a_page_and_a_program_a_problem(app: FastAPI) -> None:
    client = client_with(app, None)
    page = client.get("/raise/problem", headers={"Accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert "teapot" in page.text
    problem(client.get("/raise/problem"), 418, "internal")


def test_unknown_path_and_method_have_codes(app: FastAPI) -> None:
    client = client_with(app, None)
    problem(client.get("/api/v1/nowhere"), 404, "not_found")
    problem(client.put("/api/v1/runs"), 405, "method_not_allowed")


def test_missing_key_asks_for_a_bearer(app: FastAPI) -> None:
    answer = client_with(app, None).get("/api/v1/runs")
    problem(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
