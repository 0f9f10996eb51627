"""Every route of the app by every scope. A route that is not in the table below fails the test."""

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from picochat_contract.api import SCOPES
from picochat_server.app import ROUTERS
from support.apps import BASE_URL, client_with, new_key

PUBLIC = frozenset({"*"})
BROWSER = frozenset({"browser"})
"""Needs a session of the login page; a bearer key is not looked at."""
ARTIFACTS = frozenset({"artifacts:read", "artifacts:write", "worker"})
V1 = "/api/v1"
MATRIX: dict[str, frozenset[str]] = {
    f"POST {V1}/runs": frozenset({"runs:write"}),
    f"GET {V1}/runs": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}": frozenset({"runs:read"}),
    f"POST {V1}/runs/{{run}}/cancel": frozenset({"runs:write"}),
    f"POST {V1}/runs/{{run}}/checkpoint": frozenset({"runs:write"}),
    f"GET {V1}/runs/{{run}}/events": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}/events/stream": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}/metrics": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}/gate": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}/artifacts": frozenset({"artifacts:read", "worker"}),
    f"GET {V1}/runs/{{run}}/artifacts/{{path:path}}": frozenset({"artifacts:read", "worker"}),
    f"GET {V1}/schema/run-spec": PUBLIC,
    f"POST {V1}/artifacts/missing": frozenset({"artifacts:write", "worker"}),
    f"HEAD {V1}/artifacts/{{sha256}}": ARTIFACTS,
    f"GET {V1}/artifacts/{{sha256}}": frozenset({"artifacts:read", "worker"}),
    f"PUT {V1}/artifacts/{{sha256}}": frozenset({"artifacts:write"}),  # a worker also needs its lease
    f"PATCH {V1}/artifacts/{{sha256}}": frozenset({"artifacts:write"}),
    f"POST {V1}/datasets": frozenset({"runs:write"}),
    f"GET {V1}/datasets": frozenset({"runs:read"}),
    f"GET {V1}/datasets/{{dataset}}": frozenset({"runs:read"}),
    f"GET {V1}/datasets/by-name/{{name}}": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}/preflight": frozenset({"runs:read"}),
    f"GET {V1}/runs/{{run}}/honesty": frozenset({"runs:read"}),
    f"POST {V1}/releases": frozenset({"runs:write"}),
    f"GET {V1}/releases": frozenset({"runs:read"}),
    f"POST {V1}/keys": frozenset(),
    f"GET {V1}/keys": frozenset(),
    f"DELETE {V1}/keys/{{key}}": frozenset(),
    f"GET {V1}/workers": frozenset({"runs:read"}),
    f"POST {V1}/worker/claims": frozenset({"worker"}),
    f"POST {V1}/worker/attempts/{{attempt}}/heartbeat": frozenset({"worker"}),
    f"POST {V1}/worker/attempts/{{attempt}}/events": frozenset({"worker"}),
    f"POST {V1}/worker/attempts/{{attempt}}/checkpoint": frozenset({"worker"}),
    f"POST {V1}/worker/attempts/{{attempt}}/finish": frozenset({"worker"}),
    "GET /v1/models": frozenset({"infer"}),
    "GET /v1/models/{name}": frozenset({"infer"}),
    "POST /v1/completions": frozenset({"infer"}),
    "POST /v1/chat/completions": frozenset({"infer"}),
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /": BROWSER,
    "GET /runs": BROWSER,
    "GET /runs/new": BROWSER,
    "POST /runs/new": BROWSER,
    "GET /runs/{run_id}": BROWSER,
    "GET /runs/{run_id}/live": BROWSER,
    "GET /runs/{run_id}/preflight": BROWSER,
    "GET /runs/{run_id}/honesty": BROWSER,
    "GET /datasets": BROWSER,
    "GET /datasets/{dataset_id}": BROWSER,
    "POST /runs/{run_id}/cancel": BROWSER,
    "GET /runs/{run_id}/files/{path:path}": BROWSER,
    "GET /login": PUBLIC,
    "POST /login": PUBLIC,
    "POST /logout": PUBLIC,
    "GET /static/{name}": PUBLIC,
}
PARAMETERS = {
    "{run}": "run_x",
    "{run_id}": "run_x",
    "{path:path}": "corpus.txt",
    "{sha256}": "0" * 64,
    "{key}": "key_x",
    "{attempt}": "att_x",
    "{name}": "nothing",
    "{dataset}": "ds_x",
    "{dataset_id}": "ds_x",
}


def _address(path: str) -> str:
    for name, value in PARAMETERS.items():
        path = path.replace(name, value)
    assert "{" not in path, path
    return path


def test_every_route_is_in_the_matrix() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = {f"{method} {route.path}" for route in routes for method in route.methods or ()}
    assert found == set(MATRIX)


def _status(client: TestClient, route: str) -> int:
    """What an empty request to the route is answered with; forms come from our own page."""
    method, path = route.split()
    return client.request(method, _address(path), json={}, headers={"Origin": BASE_URL}).status_code


def test_scope_decides(app: FastAPI, project_id: str) -> None:
    wrong = []
    for scope in SCOPES:
        client = client_with(app, new_key(app, project_id, scope))
        for route, allowed in MATRIX.items():
            status = _status(client, route)
            if allowed == BROWSER:
                is_right = status == 401
            else:
                may = allowed == PUBLIC or scope in allowed or scope == "admin"
                is_right = (status != 403) == may
            if not is_right:
                wrong.append((route, scope, status))
    assert wrong == []


@pytest.mark.parametrize("key", [None, "pk_wrong", "nonsense"])
def test_without_a_valid_key_only_public_routes_answer(app: FastAPI, key: str | None) -> None:
    client = client_with(app, key)
    refused = {route for route in MATRIX if _status(client, route) == 401}
    open_routes = {route for route, allowed in MATRIX.items() if allowed == PUBLIC}
    assert set(MATRIX) - refused == open_routes - {"POST /login"}  # which answers a wrong key in the same way
