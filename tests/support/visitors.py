"""Keys and clients for tests of the pages: a client here behaves like a browser."""

import re
from dataclasses import dataclass
from datetime import datetime

from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server.auth.service import make_key
from picochat_server.db import transaction

BASE_URL = "http://127.0.0.1:7460"


@dataclass(frozen=True)
class Key:
    id: str
    secret: str


def new_key(app: FastAPI, project_id: str, *scopes: str, expires_at: datetime | None = None) -> Key:
    with transaction(app.state.sessions) as session:
        key, secret = make_key(session, project_id, "laptop", scopes, expires_at)
        return Key(key.id, secret)


def browser(app: FastAPI, base_url: str = BASE_URL) -> TestClient:
    """Asks for HTML, keeps cookies, sends its origin with forms; redirects are the test's to follow."""
    headers = {"Accept": "text/html", "Origin": base_url}
    return TestClient(
        app, base_url=base_url, headers=headers, follow_redirects=False, raise_server_exceptions=False
    )


def log_in(app: FastAPI, key: Key) -> TestClient:
    client = browser(app)
    assert client.post("/login", data={"key": key.secret}).status_code == 303
    return client


def text_of(page: str) -> str:
    """What a reader sees: tags away, white space single."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
