"""Run the app under uvicorn: bind first, so that a taken port is said plainly; end streams when a signal comes."""

import errno
import logging
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

logger = logging.getLogger(__name__)
BACKLOG = 2048
GRACEFUL_SECONDS = 10


class PortTakenError(Exception):
    """Another program listens there; the message says what to do."""


class ControlServer(uvicorn.Server):
    """uvicorn with two additions: `on_ready` once it listens, and `before_exit` while it still answers.

    The first signal runs `before_exit` (the embedded worker hands its stage back through this very server), then
    ends open streams and stops; the second signal stops at once.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        on_ready: Callable[[], None] | None = None,
        before_exit: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                server_header=False,
            )
        )
        self._closing: threading.Event = app.state.closing
        self._on_ready = on_ready
        self._before_exit = before_exit
        self._num_signals = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called in the main thread; must not block it. We end with code 0, so the signal is not raised again."""
        self._num_signals += 1
        if self._num_signals == 1 and self._before_exit is not None:
            threading.Thread(target=self._leave, name="picochat-leave").start()
        elif self._num_signals <= 2:
            self._stop()
        else:
            self.force_exit = True

    def _leave(self) -> None:
        assert self._before_exit is not None, "handle_exit asks"
        try:
            self._before_exit()
        finally:
            self._stop()

    def _stop(self) -> None:
        self._closing.set()  # streams end; uvicorn would wait for them
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raise PortTakenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise PortTakenError(
                f"cannot listen on {host} port {port}: {error.strerror}; stop the program that has it, or choose "
                "another with --port (0 takes a free one)"
            ) from error
        raise
    return listener


def address_of(listener: socket.socket, host: str) -> str:
    """The URL under which a listener is reached from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name to show, not to bind
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None] | None = None,
    before_exit: Callable[[], None] | None = None,
) -> None:
    """Answer until SIGINT or SIGTERM."""
    server = ControlServer(app, on_ready=on_ready, before_exit=before_exit)
    logger.info("listening", extra={"address": str(listener.getsockname())})
    server.run(sockets=[listener])
