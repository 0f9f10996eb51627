"""Something to upload, keys of chosen scopes, and a client of a second project."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.auth.service import ensure_project, make_key
from picochat_server.db import transaction
from support.artifacts import Blob


@pytest.fixture
def blob() -> Blob:
    return Blob(bytes(range(256)) * 40)


@pytest.fixture
def key_for(app: FastAPI, project_id: str) -> Callable[..., dict[str, str]]:
    """Headers with a key of these scopes, in this project or another."""

    def make(*scopes: str, project: str = "") -> dict[str, str]:
        with transaction(app.state.sessions) as session:
            owner = ensure_project(session, project).id if project else project_id
            secret = make_key(session, owner, "test", scopes)[1]
        return {"Authorization": f"Bearer {secret}"}

    return make


@pytest.fixture
def stranger(app: FastAPI, key_for: Callable[..., dict[str, str]]) -> TestClient:
    """An admin of another project."""
    return TestClient(app, base_url="http://127.0.0.1", headers=key_for("admin", project="other"))
