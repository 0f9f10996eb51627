"""A real server whose model processes are `fake_model.py`, and runs whose weights say how that behaves."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
import uvicorn
from fastapi import FastAPI
from picochat_contract import layout
from picochat_contract.api import ReleaseIn
from picochat_contract.canonical import sha256_hex
from picochat_server import bootstrap
from picochat_server.app import create_app, dispose
from picochat_server.auth.principal import Principal
from picochat_server.db import transaction
from picochat_server.inference.host import ModelHost
from picochat_server.releases.service import release
from picochat_server.settings import Settings
from support import seeded_runs as seed
from support.finished_run import SFT_WEIGHTS, FinishedRun, approved_files, edited
from support.visitors import new_key

FAKE = Path(__file__).with_name("fake_model.py")
START_SECONDS = 20


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"model_command": f"{sys.executable} {FAKE}", "model_idle_seconds": 60.0}
    )


@pytest.fixture
def allow_unreleased(settings: Settings) -> Settings:
    return settings.model_copy(update={"allow_unreleased": True})


def served(app: FastAPI) -> Iterator[str]:
    """The app behind uvicorn, with its lifespan: that is what starts and stops the model host."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            assert time.monotonic() < deadline and thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def site(app: FastAPI) -> Iterator[str]:
    yield from served(app)


@pytest.fixture
def free_app(allow_unreleased: Settings) -> Iterator[FastAPI]:
    """The same database behind a server that serves unreleased models."""
    bootstrap.prepare_folders(allow_unreleased)
    app = create_app(allow_unreleased)
    yield app
    dispose(app)


@pytest.fixture
def free_site(free_app: FastAPI) -> Iterator[str]:
    yield from served(free_app)


@pytest.fixture
def host_of() -> Callable[[FastAPI], ModelHost]:
    def find(app: FastAPI) -> ModelHost:
        host: ModelHost = app.state.model_host
        return host

    return find


Asker = Callable[[str], openai.OpenAI]


@pytest.fixture
def ask(app: FastAPI, project_id: str) -> Iterator[Asker]:
    """OpenAI's own client with a key that may infer and nothing else."""
    key = new_key(app, project_id, "infer").secret
    clients: list[openai.OpenAI] = []

    def make(site: str) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{site}/v1", api_key=key, max_retries=0, timeout=30))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


ABOUT_WEIGHTS = (
    layout.SFT_REPORT,
    layout.FIT_REPORT,
    layout.FIT_HELDOUT_REPORT,
    layout.EVAL_REPORT,
    layout.AUDIT,
)


def files_with_weights(content: str) -> dict[str, bytes]:
    """Files of an approved run around these weights."""
    old = sha256_hex(approved_files()[SFT_WEIGHTS])
    files = seed.model_files() | {SFT_WEIGHTS: content.encode()}
    for path in ABOUT_WEIGHTS:
        assert old in files[path].decode()
        files[path] = edited(files[path], subject=sha256_hex(content.encode()))
    return files


@pytest.fixture
def make_run(app: FastAPI, project_id: str) -> Callable[[str], FinishedRun]:
    """An approved, not released run whose weights are this text."""

    def make(weights: str) -> FinishedRun:
        run = seed.finished(app, project_id, "model", files_with_weights(weights))
        assert run.decide() == "approved"
        return run

    return make


@pytest.fixture
def make_release(
    app: FastAPI, project_id: str, make_run: Callable[[str], FinishedRun]
) -> Callable[[str, str], FinishedRun]:
    def make(name: str, weights: str = "model") -> FinishedRun:
        run = make_run(weights)
        state = app.state
        admin = Principal(key_id="key_test", project_id=project_id, scopes=frozenset({"admin"}))
        with transaction(state.sessions) as session:
            release(session, state.store, state.settings, admin, ReleaseIn(name=name, run=run.run_id))
        return run

    return make
