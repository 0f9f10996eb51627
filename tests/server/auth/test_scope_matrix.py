"""Every route of the app by every scope. A route that is not in the table below fails the test."""

from fastapi import FastAPI
from fastapi.routing import APIRoute
from picochat_contract.api import SCOPES
from picochat_server.app import ROUTERS
from support.apps import client_with, new_key

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
    "GET /runs/{run_id}": BROWSER,
    "GET /runs/{run_id}/live": BROWSER,
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


def test_scope_decides(app: FastAPI, project_id: str) -> None:
    clients = {scope: client_with(app, new_key(app, project_id, scope)) for scope in SCOPES}
    wrong = []
    for route, allowed in MATRIX.items():
        method, path = route.split()
        for scope, client in clients.items():
            status = client.request(method, _address(path), json={}).status_code
            may = allowed == PUBLIC or (allowed != BROWSER and (scope in allowed or scope == "admin"))
            refused = 401 if allowed == BROWSER else 403
            if (status == refused) == may and not (allowed == BROWSER and status == 403):
                wrong.append((route, scope, status))
    assert wrong == []


def test_no_key_and_a_wrong_key_open_nothing_but_the_public_routes(app: FastAPI) -> None:
    wrong = []
    for key in (None, "pk_wrong", "nonsense"):
        client = client_with(app, key)
        for route, allowed in MATRIX.items():
            method, path = route.split()
            status = client.request(method, _address(path), json={}).status_code
            refused = (401, 403) if allowed == BROWSER and method == "POST" else (401,)
            if (status in refused) == (allowed == PUBLIC) and path not in ("/login", "/logout"):
                wrong.append((route, key, status))
    assert wrong == []
