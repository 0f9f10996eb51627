"""An app behind a real socket, in a thread: for streams, which the in-process client would wait for."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from picochat_server import serving


class Live:
    def __init__(self, url: str, server: serving.ControlServer, thread: threading.Thread) -> None:
        self.url = url
        self._server = server
        self._thread = thread

    def stop(self, seconds: float = 20) -> float:
        """Stop as SIGTERM would; seconds that it took."""
        began = time.monotonic()
        self._server.handle_exit(15, None)
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the server did not stop"
        return time.monotonic() - began


@contextmanager
def serving_app(app: FastAPI) -> Iterator[Live]:
    ready = threading.Event()
    with serving.bind("127.0.0.1", 0) as listener:
        server = serving.ControlServer(app, on_ready=ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        live = Live(serving.address_of(listener, "127.0.0.1"), server, thread)
        try:
            assert ready.wait(20), "the server did not start"
            yield live
        finally:
            live.stop()
