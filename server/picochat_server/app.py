"""create_app(settings): the control plane as one ASGI app. Knows every router; nothing imports it but commands."""

import logging
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import to_thread
from fastapi import FastAPI
from picochat_contract.version import __version__

from picochat_server import health, problems
from picochat_server.artifacts.endpoints import router as artifacts_router
from picochat_server.artifacts.store import LocalStore
from picochat_server.bootstrap import with_secret
from picochat_server.datasets.endpoints import router as datasets_router
from picochat_server.db import make_engine, make_read_sessions, make_sessions
from picochat_server.gates.endpoints import router as gates_router
from picochat_server.health import HttpMetrics, MeasureRequests
from picochat_server.inference.endpoints import router as inference_router
from picochat_server.keys.endpoints import router as keys_router
from picochat_server.loops.rounds import Rounds
from picochat_server.middleware import BodyLimit, HostCheck, RequestId, allowed_hosts
from picochat_server.pages.endpoints import router as pages_router
from picochat_server.pages.errors import error_page
from picochat_server.pages.session import BrowserSession
from picochat_server.preflight.endpoints import router as preflight_router
from picochat_server.releases.endpoints import router as releases_router
from picochat_server.runs.endpoints import router as runs_router
from picochat_server.runs.streams import router as streams_router
from picochat_server.settings import Settings
from picochat_server.worker_api.endpoints import router as worker_router

logger = logging.getLogger(__name__)
POOL_SIZE = 10
WORKER_POOL_SIZE = 5
DESCRIPTION = (
    "Submit a training run, get every artifact and a verdict. Keys: `Authorization: Bearer pk_...`. "
    "Errors are RFC 9457 problem JSON with a stable `code`."
)
ROUTERS = (
    runs_router,
    streams_router,
    gates_router,
    preflight_router,
    artifacts_router,
    datasets_router,
    releases_router,
    worker_router,
    keys_router,
    inference_router,
    pages_router,
    health.router,
)


def create_app(settings: Settings) -> FastAPI:
    """Build the app; its database must have been migrated (see bootstrap.migrate)."""
    app = FastAPI(
        title="picochat",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,  # its page loads scripts from elsewhere, which our content policy refuses
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    _fill_state(app, with_secret(settings))
    problems.install(app)
    _add_middleware(app, settings)
    for router in ROUTERS:
        app.include_router(router)
    return app


def dispose(app: FastAPI) -> None:
    """Close the database connections of an app; also for tests, which run no lifespan."""
    for engine in app.state.engines:
        engine.dispose()


def _fill_state(app: FastAPI, settings: Settings) -> None:
    engine = make_engine(settings.url, pool_size=POOL_SIZE)
    worker_engine = make_engine(settings.url, pool_size=WORKER_POOL_SIZE)
    app.state.settings = settings
    app.state.engines = (engine, worker_engine)
    app.state.sessions = make_sessions(engine)
    app.state.read_sessions = make_read_sessions(engine)
    app.state.worker_sessions = make_sessions(worker_engine)
    app.state.worker_read_sessions = make_read_sessions(worker_engine)
    app.state.store = LocalStore(settings.artifacts)
    app.state.metrics = HttpMetrics()
    app.state.error_page = error_page
    app.state.closing = threading.Event()
    app.state.started_at = time.monotonic()


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """The last one added is the outermost."""
    app.add_middleware(BrowserSession, secret_key=app.state.settings.secret_key)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(HostCheck, allowed=allowed_hosts(settings))
    app.add_middleware(MeasureRequests, metrics=app.state.metrics)
    app.add_middleware(RequestId)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    rounds = Rounds(
        state.settings, state.engines[0], state.sessions, state.store, started_at=state.started_at
    )
    rounds.start()
    try:
        yield
    finally:
        state.closing.set()
        await to_thread.run_sync(rounds.stop)
        dispose(app)
