"""/healthz, /readyz, /metrics. Open by design: they name no run, no project and no key."""

import time

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from picochat_contract.errors import Code
from picochat_contract.version import __version__
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from sqlalchemy import func, select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picochat_server.auth.deps import SessionDep
from picochat_server.models import Outbox, Run, Stage
from picochat_server.problems import ApiProblem

router = APIRouter(tags=["health"], include_in_schema=False)
METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class HttpMetrics:
    """The numbers of one app, in a registry of its own, so that two apps in a process do not meet."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ["method", "route", "status"]
        self.requests = Counter("picochat_http_requests", "Requests answered.", labels, registry=registry)
        self.seconds = Histogram(
            "picochat_http_request_seconds",
            "Seconds until the answer began.",
            ["method", "route"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
        self.runs = Gauge("picochat_runs", "Runs by state.", ["state"], registry=registry)
        self.stages = Gauge("picochat_stages", "Stages by state.", ["state"], registry=registry)
        self.outbox = Gauge("picochat_outbox_unpublished", "Hints not yet published.", registry=registry)
        build = Gauge("picochat_build", "Version of this server.", ["version"], registry=registry)
        build.labels(version=__version__).set(1)


class MeasureRequests:
    """Pure ASGI middleware: counts and times every answer by route, never by raw path."""

    def __init__(self, app: ASGIApp, *, metrics: HttpMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unmatched")
                method = scope["method"] if scope["method"] in METHODS else "other"
                self.metrics.requests.labels(method, route, message["status"]).inc()
                self.metrics.seconds.labels(method, route).observe(time.perf_counter() - started)
            await send(message)

        await self.app(scope, receive, measured)


@router.get("/healthz")
def healthz() -> dict[str, str]:
    """The process answers. Looks at nothing else."""
    return {"status": "ok", "version": __version__}


@router.get("/readyz")
def readyz(request: Request, session: SessionDep) -> JSONResponse:
    """The database answers and the server is not shutting down."""
    session.execute(select(1))
    if request.app.state.closing.is_set():
        raise ApiProblem(503, Code.DATABASE_BUSY, "the server is shutting down; ask another one")
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
def metrics(request: Request, session: SessionDep) -> Response:
    """Prometheus text format."""
    numbers: HttpMetrics = request.app.state.metrics
    for gauge, model in ((numbers.runs, Run), (numbers.stages, Stage)):
        gauge.clear()
        for state, count in session.execute(select(model.state, func.count()).group_by(model.state)):
            gauge.labels(state=state).set(count)
    waiting = select(func.count()).select_from(Outbox).where(Outbox.published_at.is_(None))
    numbers.outbox.set(session.scalar(waiting) or 0)
    return Response(generate_latest(numbers.registry), media_type=CONTENT_TYPE_LATEST)
