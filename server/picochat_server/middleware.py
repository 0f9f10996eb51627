"""Pure ASGI middleware: request ids, the Host allow-list, and the size limit of request bodies."""

import contextvars
import re
import secrets
from collections.abc import Collection

from picochat_contract.api import API
from picochat_contract.errors import Code
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picochat_server.problems import ApiProblem, answer
from picochat_server.settings import LOOPBACK_HOSTS, Settings

REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
UPLOADS = f"{API}/artifacts/"  # streamed to disk under a limit of its own
current_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""For log records."""


class RequestId:
    """Give every request an id: the caller's `X-Request-ID` if it is plain, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else "req_" + secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        current_request_id.set(request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class HostCheck:
    """Answer 400 `bad_host` to names that are not ours: a page elsewhere cannot rebind its DNS to loopback."""

    def __init__(self, app: ASGIApp, *, allowed: Collection[str]) -> None:
        self.app = app
        self.allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "*" not in self.allowed:
            host = host_name(Headers(scope=scope).get("host", ""))
            if host not in self.allowed:
                problem = ApiProblem(
                    400,
                    Code.BAD_HOST,
                    f"the Host header names {host!r}, which this server does not answer to; "
                    "add it to PICOCHAT_ALLOWED_HOSTS",
                    param="Host",
                )
                await answer(Request(scope), problem)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyLimit:
    """Read a request's body up to the limit before the app sees it; 413 beyond. Uploads are not touched."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope) or _is_upload(scope):
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        body = None if int(declared) > self.max_bytes else await self._read(receive)
        if body is None:
            problem = ApiProblem(
                413,
                Code.UPLOAD_TOO_LARGE,
                f"the body is larger than {self.max_bytes} bytes; upload files as artifacts instead",
                headers={"Connection": "close"},
            )
            await answer(Request(scope), problem)(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b"".join(chunks)
            chunk = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > self.max_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(chunks)


def allowed_hosts(settings: Settings) -> frozenset[str]:
    """Loopback names, the bind address, and what the settings add."""
    extra = {name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()}
    return LOOPBACK_HOSTS | extra | {settings.host.lower()}


def host_name(header: str) -> str:
    """The name in a Host header, without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    return "transfer-encoding" in headers or (length.isdigit() and int(length) > 0)


def _is_upload(scope: Scope) -> bool:
    return scope["method"] in ("PUT", "PATCH") and scope["path"].startswith(UPLOADS)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
