"""Outermost layer of the model server: Host, key and body size, checked before a byte of the body is parsed."""

import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picochat_trainer.inference import openai_errors
from picochat_trainer.inference.openai_errors import ApiError

MAX_BODY_BYTES = 1024 * 1024
MAX_DRAINED_BYTES = 16 * 1024 * 1024
CHECKPOINT_HEADER = "Picochat-Checkpoint"
HEALTH = "/healthz"


class Guard:
    """Pure ASGI, so that a stream passes through piece by piece."""

    def __init__(
        self, app: ASGIApp, *, api_key: str | None, allowed_hosts: Iterable[str], checkpoint_sha256: str
    ) -> None:
        self._app = app
        self._api_key = api_key
        self._allowed_hosts = frozenset(allowed_hosts)
        self._checkpoint_sha256 = checkpoint_sha256

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope["path"], Headers(scope=scope))
            body = await _read_body(receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return

        async def replay() -> Message:
            """The body that was read, then whatever comes: nothing but the client's leaving."""
            return body.pop() if body else await receive()

        async def send_with_checkpoint(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[CHECKPOINT_HEADER] = self._checkpoint_sha256
            await send(message)

        await self._app(scope, replay, send_with_checkpoint)

    def _check(self, path: str, headers: Headers) -> None:
        if self._api_key is None:
            # Without a key, a web page could reach a loopback port under a name of its own (DNS rebinding).
            if host_name(headers.get("host", "")) not in self._allowed_hosts:
                raise openai_errors.unknown_host(self._allowed_hosts)
        elif path != HEALTH:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            is_same = hmac.compare_digest(given.strip().encode(), self._api_key.encode())
            if scheme.lower() != "bearer" or not is_same:
                raise openai_errors.unauthenticated()


def host_name(host: str) -> str:
    """A Host header without its port."""
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


async def _read_body(receive: Receive) -> list[Message]:
    """The whole body as one message; raise `too_large` for one over the limit.

    A body somewhat over it is read to its end: a client that is still sending would not see the answer.
    """
    body = bytearray()
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return [message]
        part = message.get("body", b"")
        num_bytes += len(part)
        if num_bytes <= MAX_BODY_BYTES:
            body += part
        if num_bytes > MAX_DRAINED_BYTES or not message.get("more_body", False):
            break
    if num_bytes > MAX_BODY_BYTES:
        raise openai_errors.too_large(MAX_BODY_BYTES)
    return [{"type": "http.request", "body": bytes(body), "more_body": False}]
