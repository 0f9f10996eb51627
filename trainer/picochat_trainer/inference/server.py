"""OpenAI-compatible HTTP server for one checkpoint: /healthz, /v1/models, /v1/completions, /v1/chat/completions.

    picochat serve --checkpoint DIR --tokenizer tokenizer.json

One thread generates for all requests (`scheduler`); the event loop only moves text. No CORS headers: a web page of
another origin cannot read an answer. Not here: tools, log-probabilities, images.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from anyio import to_thread
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from picochat_contract.errors import Code, ContractError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from picochat_trainer.inference import openai_errors
from picochat_trainer.inference.answering import (
    Answering,
    Defaults,
    chat_generations,
    completion_generations,
)
from picochat_trainer.inference.batch import Generation
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.guard import HEALTH, Guard
from picochat_trainer.inference.openai_answers import (
    Answer,
    ChatWriter,
    Head,
    Model,
    ModelList,
    TextWriter,
    Writer,
)
from picochat_trainer.inference.openai_errors import ApiError
from picochat_trainer.inference.openai_requests import ChatRequest, CompletionRequest, SamplingRequest
from picochat_trainer.inference.scheduler import QueueFullError, Scheduler

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
CLIENT_CLOSED_REQUEST = 499  # nobody reads it; it is for the access log
LOOPBACK_NAMES = ("127.0.0.1", "[::1]", "localhost")

router = APIRouter()


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    host: str = "127.0.0.1"
    """Address that it listens on; without a key, requests must name it or another loopback name."""
    model_name: str = "picochat"
    api_key: str | None = None
    defaults: Defaults = field(default_factory=Defaults)
    num_slots: int = 8
    """Answers generated at the same time."""
    max_waiting: int = 32
    """Answers that may wait for a slot; more are refused with 429."""


@dataclass(frozen=True)
class Service:
    """What the endpoints share."""

    engine: Engine
    settings: ServerSettings
    scheduler: Scheduler
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def checkpoint_sha256(self) -> str:
        return self.engine.checkpoint_sha256 or "unsaved"

    def head(self, prefix: str) -> Head:
        return Head(
            id=f"{prefix}-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=self.settings.model_name,
            system_fingerprint=f"fp_{self.checkpoint_sha256[:12]}",
        )

    def submit(self, generations: list[list[Generation]]) -> Answering:
        """Queue the choices of all prompts."""
        answering = Answering(
            list(chain.from_iterable(generations)),
            num_prompt_tokens=sum(len(choices[0].prompt_ids) for choices in generations),
        )
        try:
            self.scheduler.submit(answering.generations, answering.deliver)
        except QueueFullError as error:
            raise openai_errors.overloaded(RETRY_AFTER_SECONDS) from error
        return answering


class EventStream(StreamingResponse):
    """Ends generation when the client leaves, also before the first event."""

    def __init__(self, events: AsyncIterator[str], answering: Answering) -> None:
        # Proxies must not hold pieces back.
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.cancel()


def create_app(engine: Engine, settings: ServerSettings) -> FastAPI:
    scheduler = Scheduler(engine, num_slots=settings.num_slots, max_waiting=settings.max_waiting)
    service = Service(engine, settings, scheduler)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await to_thread.run_sync(scheduler.stop)

    app = FastAPI(
        title="picochat model server", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(ApiError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)
    app.add_exception_handler(ContractError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(Exception, _answer_error)
    app.add_middleware(
        Guard,
        api_key=settings.api_key,
        allowed_hosts=(*LOOPBACK_NAMES, settings.host),
        checkpoint_sha256=service.checkpoint_sha256,
    )
    return app


@router.get(HEALTH)
async def health(request: Request) -> dict[str, str]:
    service = _service(request)
    return {"status": "ok", "model": service.settings.model_name, "checkpoint": service.checkpoint_sha256}


@router.get("/v1/models")
async def list_models(request: Request) -> ModelList:
    return ModelList(data=[_model(_service(request))])


@router.get("/v1/models/{model:path}")
async def get_model(model: str, request: Request) -> Model:
    service = _service(request)
    _check_model(model, service)
    return _model(service)


@router.post("/v1/chat/completions")
async def chat(body: ChatRequest, request: Request) -> Response:
    service = _service(request)
    _check_model(body.model, service)
    make = partial(chat_generations, service.engine, body, service.settings.defaults)
    # Encoding a prompt of a megabyte takes a while: not on the event loop.
    answering = service.submit(await to_thread.run_sync(make))
    return await _respond(answering, ChatWriter(service.head("chatcmpl")), body, request)


@router.post("/v1/completions")
async def complete(body: CompletionRequest, request: Request) -> Response:
    service = _service(request)
    _check_model(body.model, service)
    make = partial(completion_generations, service.engine, body, service.settings.defaults)
    answering = service.submit(await to_thread.run_sync(make))
    return await _respond(answering, TextWriter(service.head("cmpl")), body, request)


async def _respond(answering: Answering, writer: Writer, body: SamplingRequest, request: Request) -> Response:
    if body.stream:
        events = _events(answering, writer, includes_usage=body.includes_usage)
        return EventStream(events, answering)
    if not await _finish(answering, request):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    completions = [generation.completion() for generation in answering.generations]
    return JSONResponse(writer.whole(completions, answering.usage()).model_dump())


async def _events(answering: Answering, writer: Writer, *, includes_usage: bool) -> AsyncIterator[str]:
    """The server-sent events of one answer."""

    def event(body: Answer) -> str:
        return f"data: {body.model_dump_json(exclude=None if includes_usage else {'usage'})}\n\n"

    try:
        if (opening := writer.opening()) is not None:
            yield event(opening)
        async with aclosing(answering.pieces()) as pieces:
            async for _, piece in pieces:
                if piece.text:
                    yield event(writer.text(piece.text))
                if piece.finish_reason is not None:
                    yield event(writer.end(piece.finish_reason))
        if includes_usage:
            yield event(writer.usage(answering.usage()))
        yield "data: [DONE]\n\n"
    except Exception as error:  # the edge: the status is sent, so the error goes into the stream
        yield f"data: {json.dumps(_as_api_error(error).body())}\n\n"


async def _finish(answering: Answering, request: Request) -> bool:
    """Wait for all answers; False, and an end to generation, if the client leaves before."""
    done = False

    async def wait() -> None:
        nonlocal done
        async with aclosing(answering.pieces()) as pieces:
            async for _ in pieces:
                pass
        done = True

    async def until_disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    waiting = asyncio.ensure_future(wait())
    leaving = asyncio.ensure_future(until_disconnected())
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            waiting.result()
        return done
    finally:
        answering.cancel()
        waiting.cancel()
        leaving.cancel()


async def _answer_error(request: Request, error: Exception) -> Response:
    return _as_api_error(error).response()


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return openai_errors.from_validation(error.errors())
    if isinstance(error, ContractError) and error.code is not Code.CHECKPOINT_CORRUPT:
        return ApiError(400, error.message, param=error.param, code=error.code)
    if isinstance(error, HTTPException):
        return ApiError(
            error.status_code, f"{error.detail}: see /v1/models, /v1/completions, /v1/chat/completions"
        )
    return openai_errors.internal()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _model(service: Service) -> Model:
    return Model(id=service.settings.model_name, created=service.created)


def _check_model(model: str, service: Service) -> None:
    if model != service.settings.model_name:
        raise openai_errors.model_not_found(model, service.settings.model_name)
