"""Keys and clients for an app in this process."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.auth.service import ensure_project, make_key
from picochat_server.bootstrap import DEFAULT_PROJECT
from picochat_server.db import transaction

BASE_URL = "http://127.0.0.1:7460"  # TestClient's own name would be refused as a bad host


def new_project(app: FastAPI, name: str = DEFAULT_PROJECT) -> str:
    with transaction(app.state.sessions) as session:
        return ensure_project(session, name).id


def new_key(app: FastAPI, project_id: str, *scopes: str) -> str:
    """The secret of a new key."""
    with transaction(app.state.sessions) as session:
        return make_key(session, project_id, "+".join(scopes), scopes)[1]


def client_with(app: FastAPI, key: str | None, **options: Any) -> TestClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return TestClient(app, base_url=BASE_URL, headers=headers, **options)
