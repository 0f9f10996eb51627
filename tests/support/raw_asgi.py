"""Speak ASGI to an app by hand: bodies in pieces, senders that go away, paths that no client would send."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp, Message, Scope


@dataclass
class RawAnswer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def send_raw(
    app: ASGIApp,
    method: str,
    path: str,
    headers: dict[str, str],
    chunks: Iterable[bytes] = (),
    *,
    goes_away: bool = False,
) -> RawAnswer:
    """One request; `path` is what the server sees after percent-decoding. `goes_away` cuts it after `chunks`."""
    return anyio.run(_exchange, app, _scope(method, path, headers), _messages(chunks, goes_away))


async def _exchange(app: ASGIApp, scope: Scope, messages: AsyncIterator[Message]) -> RawAnswer:
    answer = RawAnswer()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")

    await app(scope, messages.__anext__, send)
    return answer


async def _messages(chunks: Iterable[bytes], goes_away: bool) -> AsyncIterator[Message]:
    for chunk in chunks:
        yield {"type": "http.request", "body": chunk, "more_body": True}
    if not goes_away:
        yield {"type": "http.request", "body": b"", "more_body": False}
    while True:
        yield {"type": "http.disconnect"}


def _scope(method: str, path: str, headers: dict[str, str]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.lower().encode(), value.encode("latin-1"))
            for name, value in {"Host": "127.0.0.1", **headers}.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
