"""`picochat up`: the embedded control plane in this process, and one worker beside it. Ctrl-C stops both.

Database, artifacts, keys and logs lie in one folder (PICOCHAT_HOME, default .picochat), which belongs to one
control plane at a time. It binds to loopback only; a team uses `picochat-server`.
"""

import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from picochat_client.installed import typed
from picochat_contract.exit_codes import ClientExit

from picochat_server import bootstrap, home, logs, serving
from picochat_server.app import create_app
from picochat_server.children import KeptAlive
from picochat_server.commands import AllowUnreleased, make_first_keys, read_settings, refusals
from picochat_server.settings import Settings

LOG_FILE = "server.log"
app = typer.Typer(add_completion=False)


@app.command()
def up(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only the server; start workers yourself.")
    ] = False,
    allow_unreleased: AllowUnreleased = False,
    opens_browser: Annotated[bool, typer.Option("--open", help="Open the pages in a browser.")] = False,
) -> None:
    """Start server, worker and pages on this machine."""
    settings = read_settings(host="127.0.0.1", port=port, allow_unreleased=allow_unreleased or None)
    with embedded(settings) as plane:
        plane.serve(with_worker=not no_worker, on_ready=lambda: _say_hello(plane, opens_browser))


class ControlPlane:
    """Bound, migrated, with its keys: ready to serve."""

    def __init__(self, settings: Settings, listener: socket.socket, url: str, worker_key: str) -> None:
        self.settings = settings
        self.url = url
        self.worker: KeptAlive | None = None
        self._listener = listener
        self._worker_key = worker_key

    def serve(self, *, with_worker: bool, on_ready: Callable[[], None]) -> None:
        """Answer until SIGINT or SIGTERM; the worker hands its stage back before the server goes."""

        def ready() -> None:
            if with_worker:
                self.worker = KeptAlive(self.settings, self.url, self._worker_key)
            on_ready()

        try:
            control_plane = create_app(self.settings)
            serving.serve(control_plane, self._listener, on_ready=ready, before_exit=self._stop_worker)
        finally:
            if self.worker is not None:
                self.worker.kill()  # does nothing where it has gone in order

    def _stop_worker(self) -> None:
        if self.worker is not None:
            typer.echo("stopping; a running stage writes a checkpoint first (Ctrl-C again ends it at once)")
            self.worker.stop()


@contextmanager
def embedded(settings: Settings) -> Iterator[ControlPlane]:
    """Take the home, bind, migrate, make keys. Exits 64 with one line where something is in the way."""
    try:
        with home.hold(settings.home) as lock, refusals():
            logs.configure(file=settings.home / LOG_FILE)
            bootstrap.migrate(settings)
            with serving.bind(settings.host, settings.port) as listener:
                url = serving.address_of(listener, settings.host)
                worker_key = make_first_keys(settings, url).worker_key_file.read_text().strip()
                lock.announce(url)
                yield ControlPlane(settings, listener, url, worker_key)
    except home.HomeTakenError as error:
        typer.echo(f"picochat up: {error}", err=True)
        raise typer.Exit(ClientExit.USAGE) from error


def _say_hello(plane: ControlPlane, opens_browser: bool) -> None:
    folder = plane.settings.home
    rows = {
        "pages": f"{plane.url}  (sign in with the api_key in {folder / bootstrap.CLIENT_FILE})",
        "submit": f"{typed('picochat-client')} submit examples/demo.yaml --wait",
        "logs": f"{folder / LOG_FILE}" + (f", {plane.worker.log}" if plane.worker else ""),
        "stop": "Ctrl-C",
    }
    typer.echo(f"picochat is up at {plane.url}")
    for name, text in rows.items():
        typer.echo(f"  {name:<8}{text}")
    if opens_browser:
        threading.Thread(target=webbrowser.open, args=[plane.url], daemon=True).start()
