"""Host names, body sizes and request ids, before any route is looked at."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from picochat_server.app import create_app, dispose
from picochat_server.middleware import host_name
from picochat_server.settings import Settings
from support.apps import client_with
from support.hand import problem


@pytest.fixture
def database_url(tmp_path: object) -> str:
    return ""  # one database is enough here


@pytest.fixture
def tight(settings: Settings) -> Iterator[FastAPI]:
    """An app that takes small bodies and answers to one more name."""
    app = create_app(settings.model_copy(update={"max_body_bytes": 100, "allowed_hosts": "pico.example, x"}))
    yield app
    dispose(app)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7460", "", "127.0.0.1.evil.example", "[::2]:80"]
)
def test_foreign_host_name_is_refused(tight: FastAPI, host: str) -> None:
    answer = client_with(tight, None).get("/healthz", headers={"Host": host})
    assert "PICOCHAT_ALLOWED_HOSTS" in problem(answer, 400, "bad_host")["detail"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost", "LOCALHOST:7460", "[::1]:80", "pico.example", "x:9"]
)
def test_own_host_names_are_answered(tight: FastAPI, host: str) -> None:
    assert client_with(tight, None).get("/healthz", headers={"Host": host}).status_code == 200


def test_star_allows_any_host(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": "*"}))
    assert client_with(app, None).get("/healthz", headers={"Host": "any.example"}).status_code == 200
    dispose(app)


def test_host_name_without_port_and_brackets() -> None:
    assert [host_name(h) for h in ("a:1", "[::1]:2", "A", "")] == ["a", "::1", "a", ""]


def test_announced_body_that_is_too_large_is_refused(tight: FastAPI) -> None:
    answer = client_with(tight, None).post("/api/v1/runs", content=b"x" * 101)
    problem(answer, 413, "upload_too_large")


def test_streamed_body_that_grows_too_large_is_refused(tight: FastAPI) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 60] * 2

    answer = client_with(tight, None).post("/api/v1/runs", content=chunks())
    problem(answer, 413, "upload_too_large")


def test_body_at_the_limit_reaches_the_route(tight: FastAPI) -> None:
    answer = client_with(tight, None).post("/api/v1/runs", content=b"x" * 100)
    assert answer.status_code == 401


def test_request_id_comes_back_in_header_and_problem(tight: FastAPI) -> None:
    client = client_with(tight, None)
    answer = client.get("/api/v1/runs", headers={"X-Request-ID": "trace-1"})
    assert answer.headers["X-Request-ID"] == "trace-1"
    assert answer.json()["request_id"] == "trace-1"


@pytest.mark.parametrize("given", ["", "two words", "a" * 65, "line;drop"])
def test_request_id_that_is_not_plain_is_replaced(tight: FastAPI, given: str) -> None:
    answer = client_with(tight, None).get("/healthz", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"].startswith("req_")
