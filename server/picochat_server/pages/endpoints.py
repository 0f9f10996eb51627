"""Routes of the pages. They need a browser session, not a bearer key; forms carry no state but their path."""

from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from picochat_contract.api import MAX_INT
from picochat_contract.data_configs import DATASET_NAME
from picochat_contract.ids import ID_PATTERN
from picochat_contract.states import RunState
from sqlalchemy.orm import Session
from starlette.staticfiles import StaticFiles

from picochat_server.artifacts.downloads import file_answer
from picochat_server.artifacts.service import artifact_at
from picochat_server.auth.deps import SessionDep, check_scope
from picochat_server.auth.principal import Principal
from picochat_server.pages import dataset_view, honesty_view, preflight_view, submit_view, views
from picochat_server.pages.context import LoginPage, RunPage
from picochat_server.pages.data_context import Part
from picochat_server.pages.honesty import MAX_PAIR
from picochat_server.pages.html import HEADERS, STATIC, asset_digest, page
from picochat_server.pages.session import (
    ReaderDep,
    SameOriginDep,
    log_in,
    log_out,
    safe_next,
    visitor,
)
from picochat_server.runs import service as runs

FOR_EVER = "public, max-age=31536000, immutable"
WRONG_KEY = "This key is not valid: it is unknown, was revoked, or has expired. Keys look like pk_..."

router = APIRouter(include_in_schema=False)
_static = StaticFiles(directory=STATIC)


@router.get("/")
def run_list(
    request: Request,
    principal: ReaderDep,
    session: SessionDep,
    after: Annotated[str | None, Query(max_length=64)] = None,
    state: RunState | None = None,
) -> Response:
    return page("runs.html", views.runs_page(session, principal, _url(request), after, state))


@router.get("/runs")
def runs_address(_: ReaderDep) -> Response:
    """Where someone looks who shortens the address of a run."""
    return RedirectResponse("/", 303, HEADERS)


@router.get("/runs/new")
def new_run(principal: ReaderDep, session: SessionDep) -> Response:
    check_scope(principal, "runs:write")
    return page("new_run.html", submit_view.new_run_page(session, principal))


@router.post("/runs/new", dependencies=[SameOriginDep])
def submit_run(
    request: Request,
    principal: ReaderDep,
    session: SessionDep,
    spec: Annotated[str, Form(max_length=submit_view.MAX_SPEC)] = "",
    token: Annotated[str, Form(max_length=submit_view.MAX_TOKEN)] = "",
    confirmed: Annotated[bool, Form()] = False,
) -> Response:
    """Submit a spec that was typed in; a run that is paid for by the hour is asked about first."""
    check_scope(principal, "runs:write")
    state = request.app.state
    return submit_view.submitted(
        session, state.store, state.settings, principal, spec=spec, token=token, confirmed=confirmed
    )


@router.get("/runs/{run_id}")
def run(request: Request, principal: ReaderDep, session: SessionDep, run_id: str) -> Response:
    return page("run.html", _run_page(request, session, principal, run_id))


@router.get("/runs/{run_id}/live")
def live_parts(
    request: Request, principal: ReaderDep, session: SessionDep, run_id: str, seq: int = -1
) -> Response:
    """The changing parts of the run page; 204 if nothing has happened since event `seq`."""
    if views.newest_event(session, principal, run_id) == seq:
        return Response(status_code=204, headers=HEADERS)
    return page("parts/live.html", _run_page(request, session, principal, run_id))


@router.get("/runs/{run_id}/preflight")
def preflight(request: Request, principal: ReaderDep, session: SessionDep, run_id: str) -> Response:
    context = preflight_view.preflight_page(session, request.app.state.store, principal, run_id)
    return page("preflight.html", context)


@router.get("/runs/{run_id}/honesty")
def honesty(
    request: Request,
    principal: ReaderDep,
    session: SessionDep,
    run_id: str,
    part: Part = "data",
    pair: Annotated[str | None, Query(max_length=MAX_PAIR)] = None,
    number: Annotated[int, Query(alias="page", ge=1, le=MAX_INT)] = 1,
) -> Response:
    """One part of what is known of the run's honesty; `pair` and `page` choose among its findings."""
    store = request.app.state.store
    context = honesty_view.honesty_page(session, store, principal, run_id, part, pair, number)
    return page("honesty.html", context)


@router.get("/datasets")
def dataset_list(
    request: Request,
    principal: ReaderDep,
    session: SessionDep,
    name: Annotated[str | None, Query(pattern=DATASET_NAME)] = None,
    after: Annotated[str | None, Query(pattern=ID_PATTERN.pattern)] = None,
) -> Response:
    context = dataset_view.datasets_page(session, principal, _url(request), name, after)
    return page("datasets.html", context)


@router.get("/datasets/{dataset_id}")
def dataset(principal: ReaderDep, session: SessionDep, dataset_id: str) -> Response:
    return page("dataset.html", dataset_view.dataset_page(session, principal, dataset_id))


@router.post("/runs/{run_id}/cancel", dependencies=[SameOriginDep])
def cancel(principal: ReaderDep, session: SessionDep, run_id: str) -> Response:
    check_scope(principal, "runs:write")
    run = runs.cancel(session, principal, run_id)
    return RedirectResponse(f"/runs/{run.id}", 303, HEADERS)


@router.get("/runs/{run_id}/files/{path:path}")
def download(request: Request, principal: ReaderDep, session: SessionDep, run_id: str, path: str) -> Response:
    """An artifact of the run, for a browser; ranges and ETag as in the API."""
    check_scope(principal, "artifacts:read")
    digest, _ = artifact_at(session, principal.project_id, run_id, path)
    return file_answer(request, request.app.state.store, digest, PurePosixPath(path).name)


@router.get("/login")
def login_form(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    if visitor(request) is not None:
        return RedirectResponse(safe_next(next), 303, HEADERS)
    return page("login.html", LoginPage(next=safe_next(next)))


@router.post("/login", dependencies=[SameOriginDep])
def login(
    request: Request,
    session: SessionDep,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    if not log_in(request, session, key):
        return page("login.html", LoginPage(next=safe_next(next), error=WRONG_KEY), 401)
    return RedirectResponse(safe_next(next), 303, HEADERS)


@router.post("/logout", dependencies=[SameOriginDep])
def logout(request: Request) -> Response:
    log_out(request)
    return RedirectResponse("/login", 303, HEADERS)


@router.get("/static/{name}")
async def static(request: Request, name: str, v: str = "") -> Response:
    """A static file with its ETag; cached for ever where it was asked for by content."""
    response = await _static.get_response(name, request.scope)
    is_exact = response.status_code == 200 and v == asset_digest(name)
    response.headers["Cache-Control"] = FOR_EVER if is_exact else "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _run_page(request: Request, session: Session, principal: Principal, run_id: str) -> RunPage:
    state = request.app.state
    return views.run_page(session, state.store, state.settings, principal, run_id, _url(request))


def _url(request: Request) -> str:
    return str(request.base_url).rstrip("/")
