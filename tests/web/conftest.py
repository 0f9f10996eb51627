"""An app with a database of its own (SQLite: the pages' SQL runs on both databases in tests/server) and browsers."""

import html
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_contract import layout
from picochat_server import bootstrap
from picochat_server.app import create_app, dispose
from picochat_server.auth.service import ensure_project
from picochat_server.db import transaction
from picochat_server.settings import Settings
from support import seeded_runs as seed
from support.finished_run import FinishedRun
from support.visitors import Key, browser, log_in, new_key, text_of

START_SECONDS = 20


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    bootstrap.migrate(Settings(home=home, database_url=""))
    return home


@pytest.fixture
def app(database_template: Path, tmp_path: Path) -> Iterator[FastAPI]:
    shutil.copytree(database_template, tmp_path / "home")
    app = create_app(Settings(home=tmp_path / "home", database_url="", secret_key="test secret"))
    yield app
    dispose(app)


@pytest.fixture
def project_id(app: FastAPI) -> str:
    with transaction(app.state.sessions) as session:
        return ensure_project(session, bootstrap.DEFAULT_PROJECT).id


@pytest.fixture
def key(app: FastAPI, project_id: str) -> Key:
    return new_key(app, project_id, "admin")


@pytest.fixture
def anonymous(app: FastAPI) -> TestClient:
    return browser(app)


@pytest.fixture
def logged_in(app: FastAPI, key: Key) -> TestClient:
    return log_in(app, key)


@pytest.fixture
def make(app: FastAPI, project_id: str) -> Callable[..., FinishedRun]:
    """A finished run with weak results, some of its files changed."""

    def finish(**changed: bytes | None) -> FinishedRun:
        files = seed.blocked_files()
        for name, content in changed.items():
            path = getattr(layout, name)
            if content is None:
                del files[path]
            else:
                files[path] = content
        return seed.finished(app, project_id, "demo", files)

    return finish


@pytest.fixture
def show(logged_in: TestClient) -> Callable[[str], str]:
    """What a reader sees of a page that must be there."""

    def read(path: str) -> str:
        answer = logged_in.get(path)
        assert answer.status_code == 200, answer.text
        return html.unescape(text_of(answer.text))

    return read


@pytest.fixture
def site(app: FastAPI) -> Iterator[str]:
    """Address of the app behind a real server."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
