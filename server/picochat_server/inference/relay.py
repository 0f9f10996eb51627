"""Pass one request on to a model process and its answer back, as it comes.

Nothing is buffered of a stream, no database session is held, and a client who goes away ends the upstream
request at once, so that no tokens are made for nobody.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar

import httpx
from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from picochat_contract.errors import Code
from starlette.types import Receive, Scope, Send

from picochat_server.inference.files import ModelFiles
from picochat_server.inference.host import Lease, ModelHost
from picochat_server.inference.process import ModelHostError

T = TypeVar("T")
EVENT_STREAM = "text/event-stream"
LAST_EVENT = b"data: [DONE]\n\n"


class ClientGone(Exception):  # noqa: N818 - nobody is left to tell of an error
    """The client closed its connection before the answer began."""


class _Stream(StreamingResponse):
    """An answer that gives the model process free at its end, however it ends."""

    def __init__(
        self, upstream: httpx.Response, host: ModelHost, lease: Lease, headers: Mapping[str, str]
    ) -> None:
        super().__init__(_events(upstream, host, lease), upstream.status_code, headers, EVENT_STREAM)
        self._upstream, self._lease = upstream, lease

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._upstream.aclose()
            self._lease.release()


async def relay(
    request: Request,
    host: ModelHost,
    files: ModelFiles,
    path: str,
    body: dict[str, Any],
    headers: Mapping[str, str],
) -> Response:
    """Answer `body` by the model `files`; raise ModelHostError or ClientGone."""
    lease = await _unless_gone(request, host.acquire(files))
    is_handed_on = False
    try:
        upstream = await _unless_gone(request, _send(host, lease, path, body | {"model": files.name}))
        if upstream.headers.get("content-type", "").startswith(EVENT_STREAM):
            is_handed_on = True
            return _Stream(upstream, host, lease, headers)
        try:
            content = await _unless_gone(request, upstream.aread())
        finally:
            await upstream.aclose()
        return Response(content, upstream.status_code, headers, upstream.headers.get("content-type"))
    except httpx.TransportError as error:
        _note_failure(host, lease, error)
        raise ModelHostError(_broke_off(lease)) from error
    finally:
        if not is_handed_on:
            lease.release()


async def _send(host: ModelHost, lease: Lease, path: str, body: dict[str, Any]) -> httpx.Response:
    process = lease.process
    upstream = host.client.build_request(
        "POST",
        f"{process.base_url}{path}",
        json=body,
        headers={"Authorization": f"Bearer {process.api_key}", "Accept-Encoding": "identity"},
    )
    return await host.client.send(upstream, stream=True)


async def _events(upstream: httpx.Response, host: ModelHost, lease: Lease) -> AsyncIterator[bytes]:
    end = b""
    try:
        async for chunk in upstream.aiter_raw():
            end = (end + chunk)[-len(LAST_EVENT) :]
            yield chunk
    except httpx.TransportError as error:
        _note_failure(host, lease, error)
    if LAST_EVENT not in end:
        # The status has been sent: what is left is an error event, which OpenAI's clients raise.
        error_out = {
            "message": _broke_off(lease),
            "type": "server_error",
            "param": None,
            "code": Code.MODEL_HOST_UNAVAILABLE.value,
        }
        yield f"\n\ndata: {json.dumps({'error': error_out})}\n\n".encode()


def _note_failure(host: ModelHost, lease: Lease, error: httpx.TransportError) -> None:
    """A process that broke off is not asked again; one that is only slow is."""
    if not isinstance(error, httpx.TimeoutException):
        host.discard(lease)


def _broke_off(lease: Lease) -> str:
    return f"the model process broke off: {lease.process.log_tail()}"


async def _unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled if the client goes away first."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if task.cancelled():
        raise ClientGone
    return task.result()


async def _gone(request: Request) -> None:
    """Return when the connection is closed; the request's body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
