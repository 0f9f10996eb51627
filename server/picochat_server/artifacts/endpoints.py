"""Routes of the artifacts (docs/protocol.md section 3). Uploads are `async` and hold no session."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from picochat_contract.api import (
    API,
    ATTEMPT_HEADER,
    UPLOAD_LENGTH_HEADER,
    UPLOAD_OFFSET_HEADER,
    ArtifactOut,
    MissingIn,
    MissingOut,
    Page,
    UploadOut,
)
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from picochat_server.artifacts import service
from picochat_server.artifacts.access import AnyoneDep, ReaderDep, SenderDep, UploaderDep
from picochat_server.artifacts.downloads import file_answer
from picochat_server.artifacts.store import LocalStore, OffsetError, check_digest
from picochat_server.artifacts.uploads import Sender, Uploads
from picochat_server.auth.deps import SessionDep
from picochat_server.problems import PROBLEM_TYPE, ApiProblem, problem_json, request_id

MAX_PAGE = 1_000
RAW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
STORED: dict[int | str, dict[str, Any]] = {201: {"model": UploadOut, "description": "Stored"}}

router = APIRouter(prefix=API, tags=["artifacts"])


@router.post("/artifacts/missing")
def find_missing(
    request: Request, session: SessionDep, principal: UploaderDep, body: MissingIn
) -> MissingOut:
    """Which of these digests this project has to upload."""
    missing = service.missing(session, _store(request), principal.project_id, body.digests)
    return MissingOut(missing=missing)


@router.head("/artifacts/{sha256}")
def head_artifact(
    request: Request,
    session: SessionDep,
    principal: AnyoneDep,
    sha256: str,
    attempt_id: Annotated[str | None, Header(alias=ATTEMPT_HEADER)] = None,
) -> Response:
    """Size and ETag; 404 with `Upload-Offset` tells how far a cut upload of this sender came."""
    store, digest = _store(request), check_digest(sha256)
    try:
        service.size_of(session, store, principal.project_id, digest)
    except ApiProblem as problem:
        owner = Sender.owner(principal.project_id, principal.key_id, attempt_id)
        problem.headers[UPLOAD_OFFSET_HEADER] = str(store.partial_size(owner, digest))
        raise
    return file_answer(request, store, digest, digest)


@router.get("/artifacts/{sha256}", response_class=Response)
def get_artifact(request: Request, session: SessionDep, principal: ReaderDep, sha256: str) -> Response:
    """The bytes, whole or by range."""
    store, digest = _store(request), check_digest(sha256)
    service.size_of(session, store, principal.project_id, digest)
    return file_answer(request, store, digest, digest)


@router.put("/artifacts/{sha256}", response_model=UploadOut, responses=STORED, openapi_extra=RAW_BODY)
async def put_artifact(
    request: Request,
    sender: SenderDep,
    sha256: str,
    content_length: Annotated[int | None, Header(ge=0)] = None,
) -> Response:
    """Store the body under its sha256: 201 where it is new to the project, 200 where it was there."""
    digest = check_digest(sha256)
    try:
        out, is_new = await _uploads(request).put(sender, digest, request.stream(), content_length)
    except ClientDisconnect:
        return _nobody_listens()
    return JSONResponse(out.model_dump(), 201 if is_new else 200)


@router.patch("/artifacts/{sha256}", response_model=UploadOut, openapi_extra=RAW_BODY)
async def patch_artifact(
    request: Request,
    sender: SenderDep,
    sha256: str,
    upload_offset: Annotated[int, Header(alias=UPLOAD_OFFSET_HEADER, ge=0)],
    upload_length: Annotated[int, Header(alias=UPLOAD_LENGTH_HEADER, ge=0)],
    content_length: Annotated[int | None, Header(ge=0)] = None,
) -> Response:
    """Append a part; the last one checks the hash and makes the file visible."""
    digest = check_digest(sha256)
    try:
        out = await _uploads(request).patch(
            sender,
            digest,
            request.stream(),
            offset=upload_offset,
            length=upload_length,
            announced=content_length,
        )
    except OffsetError as error:
        return _wrong_offset(request, error)
    except ClientDisconnect:
        return _nobody_listens()
    return JSONResponse(out.model_dump())


@router.get("/runs/{run}/artifacts")
def list_run_artifacts(
    session: SessionDep,
    principal: ReaderDep,
    run: str,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = MAX_PAGE,
) -> Page[ArtifactOut]:
    """The run's files, by path."""
    files = service.artifacts_of_run(session, principal.project_id, run)
    rest = [file for file in files if after is None or file.path > after]
    page = rest[:limit]
    has_more = len(rest) > limit
    return Page[ArtifactOut](data=page, has_more=has_more, next=page[-1].path if has_more else None)


@router.get("/runs/{run}/artifacts/{path:path}", response_class=Response)
def get_run_artifact(
    request: Request, session: SessionDep, principal: ReaderDep, run: str, path: str
) -> Response:
    """The run's file at a path, whole or by range."""
    digest, _ = service.artifact_at(session, principal.project_id, run, path)
    return file_answer(request, _store(request), digest, PurePosixPath(path).name)


def _store(request: Request) -> LocalStore:
    store: LocalStore = request.app.state.store
    return store


def _uploads(request: Request) -> Uploads:
    state = request.app.state
    return Uploads(state.store, state.sessions, state.settings.max_upload_bytes)


def _wrong_offset(request: Request, error: OffsetError) -> Response:
    """409 that names the expected offset twice: as a header and as member `offset` of the problem."""
    problem = ApiProblem(409, error.code, error.message, param=error.param)
    return JSONResponse(
        {**problem_json(problem, request_id(request)), "offset": error.expected},
        problem.status,
        {UPLOAD_OFFSET_HEADER: str(error.expected)},
        media_type=PROBLEM_TYPE,
    )


def _nobody_listens() -> Response:
    """The sender has gone; a status is needed all the same."""
    return Response(status_code=400)
