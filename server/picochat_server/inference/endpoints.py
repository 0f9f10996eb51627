"""/v1 in OpenAI's shapes. `async`, because answers stream; the database is asked in short sessions of its own."""

import json
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from picochat_contract.api import DIGEST_HEADER, VERDICT_HEADER
from picochat_contract.errors import Code
from starlette.concurrency import run_in_threadpool

from picochat_server.auth.deps import SessionDep, require
from picochat_server.auth.principal import Principal
from picochat_server.db import transaction
from picochat_server.inference import service
from picochat_server.inference.host import ModelHost
from picochat_server.inference.process import ModelHostError
from picochat_server.inference.relay import ClientGone, relay
from picochat_server.problems import ApiProblem
from picochat_server.settings import Settings

DEFAULT_COMMAND = (sys.executable, "-m", "picochat_trainer", "serve")
JSON_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}
InferDep = Annotated[Principal, Depends(require("infer"))]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Model processes belong to one event loop, so the host lives as long as the server's."""
    app.state.model_host = make_host(app.state.settings, app)
    try:
        yield
    finally:
        await app.state.model_host.close()


router = APIRouter(prefix="/v1", tags=["inference"], lifespan=_lifespan)


@router.get("/models")
def list_models(request: Request, principal: InferDep, session: SessionDep) -> dict[str, Any]:
    """The models that this key may call."""
    state = request.app.state
    found = service.list_models(session, state.store, state.settings, principal)
    return {"object": "list", "data": [_model_out(model) for model in found]}


@router.get("/models/{name}")
def get_model(request: Request, principal: InferDep, session: SessionDep, name: str) -> dict[str, Any]:
    """One of them."""
    state = request.app.state
    return _model_out(service.find(session, state.store, state.settings, principal, name))


@router.post("/completions", openapi_extra=JSON_BODY)
async def completions(request: Request, principal: InferDep) -> Response:
    """Go on with a text (OpenAI's legacy completions)."""
    return await _answer(request, principal, "/v1/completions")


@router.post("/chat/completions", openapi_extra=JSON_BODY)
async def chat_completions(request: Request, principal: InferDep) -> Response:
    """Answer a chat."""
    return await _answer(request, principal, "/v1/chat/completions")


def make_host(settings: Settings, app: FastAPI) -> ModelHost:
    return ModelHost(
        shlex.split(settings.model_command) or DEFAULT_COMMAND,
        folder=settings.home / "models",
        stored=app.state.store.path,
        idle_seconds=settings.model_idle_seconds,
    )


async def _answer(request: Request, principal: Principal, path: str) -> Response:
    body = _parse(await request.body())
    host: ModelHost = request.app.state.model_host
    model = await run_in_threadpool(_find, request, principal, body["model"], host)
    headers = {
        VERDICT_HEADER: model.verdict,
        DIGEST_HEADER: model.files.weights,
        "Cache-Control": "no-store",
        "X-Accel-Buffering": "no",
    }
    try:
        return await relay(request, host, model.files, path, body, headers)
    except ClientGone:
        return Response(status_code=400)  # nobody reads it; a status is needed all the same
    except ModelHostError as error:
        raise ApiProblem(
            503, Code.MODEL_HOST_UNAVAILABLE, str(error), headers={**headers, "Retry-After": "5"}
        ) from error


def _find(request: Request, principal: Principal, name: str, host: ModelHost) -> service.Model:
    """In a session that is closed before the first token; the bytes are judged again when a model is loaded."""
    state = request.app.state
    with transaction(state.read_sessions) as session:
        model = service.find(session, state.store, state.settings, principal, name)
        if not host.serves(model.files):
            service.check_evidence(session, state.store, state.settings, name, model)
    return model


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise ApiProblem(400, Code.INVALID_REQUEST, f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ApiProblem(400, Code.INVALID_REQUEST, "the body must be a JSON object")
    if not isinstance(parsed.get("model"), str) or not parsed["model"]:
        raise ApiProblem(
            400, Code.INVALID_REQUEST, "'model' is missing: name one of GET /v1/models", param="model"
        )
    return parsed


def _model_out(model: service.Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": "picochat",
        "verdict": model.verdict,
        "checkpoint": model.files.weights,
    }
