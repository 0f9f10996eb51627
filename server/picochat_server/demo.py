"""`picochat demo`: the whole factory through its front doors. Starts `picochat up` on a free port, submits the demo
spec through REST with `picochat-client submit --wait`, and stops what it started.

Exits 0 when the run finished, also when the gate blocked the model: a model this small should be blocked, and
the gate's table says by which checks. Anything else exits as the client did.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from picochat_client import Client
from picochat_client.installed import typed
from picochat_contract.exit_codes import ClientExit
from picochat_contract.states import RunState

from picochat_server import bootstrap, home
from picochat_server.children import Child, program
from picochat_server.commands import read_settings
from picochat_server.settings import Settings

READY_SECONDS = 60
STOP_SECONDS = 90
FINISHED = frozenset({ClientExit.OK, ClientExit.GATE_BLOCKED, ClientExit.GATE_WARN})
BLOCKED = """\
The gate blocked this model, and that is the honest answer: a small model,
trained briefly on one small corpus, knows little. The table above names each
check that blocks and what would fix it. The demo itself did what it should:
every stage ran, every file is stored, the verdict rests on their digests.
So the demo exits 0; the client's exit 2 above is what stops a release in CI."""
app = typer.Typer(add_completion=False)


@app.command()
def demo(
    spec: Annotated[Path, typer.Option(help="Run spec to submit.")] = Path("examples/demo.yaml"),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the control plane running until Ctrl-C.")
    ] = False,
) -> None:
    """Train the demo model through the whole factory and show its gate report."""
    if not spec.is_file():
        raise _refused(f"there is no file {spec}; run this in the repository, or give --spec")
    settings = read_settings()
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    signal.signal(signal.SIGTERM, _leave)
    plane = Child("up", [program("picochat"), "up", "--port", "0"], os.environ, settings.home / "demo.log")
    try:
        url = _wait_for_address(plane, settings)
        typer.echo(f"control plane at {url}, one worker, everything in {settings.home}/\n")
        code = _submit(spec, url, settings)
        if code == ClientExit.GATE_BLOCKED and _was_stopped(url, settings):
            typer.echo("\nPreflight stopped this run before anything was trained; the checks above say why.")
            raise typer.Exit(code)
        _say_what_it_means(code)
        if keep and code in FINISHED:
            _keep(plane, url)
    finally:
        plane.stop(STOP_SECONDS)
    raise typer.Exit(0 if code in FINISHED else code)


def _wait_for_address(plane: Child, settings: Settings) -> str:
    """The address that our own `picochat up` announced."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if plane.exit_code is not None:
            typer.echo(f"the control plane did not start:\n{plane.log_tail(5)}", err=True)
            raise typer.Exit(plane.exit_code or 1)
        announced = home.announced(settings.home)
        if announced is not None and announced.pid == plane.pid:
            return announced.url
        time.sleep(0.1)
    typer.echo(f"the control plane was not ready in {READY_SECONDS} s:\n{plane.log_tail()}", err=True)
    raise typer.Exit(ClientExit.UNREACHABLE)


def _submit(spec: Path, url: str, settings: Settings) -> int:
    """Submit as any user would; the client draws the progress, the gate report and the samples."""
    environment = {**os.environ, "PICOCHAT_URL": url, "PICOCHAT_API_KEY": _api_key(settings)}
    command = [program("picochat-client"), "submit", str(spec), "--wait"]
    return subprocess.run(command, env=environment, check=False).returncode


def _was_stopped(url: str, settings: Settings) -> bool:
    """True if the newest run ended at preflight: the client's exit code is that of a blocking gate."""
    with Client(url, _api_key(settings)) as client:
        newest = next(client.runs.list(), None)
    return newest is not None and newest.state is RunState.BLOCKED


def _api_key(settings: Settings) -> str:
    return bootstrap.client_key(settings.home / bootstrap.CLIENT_FILE)


def _say_what_it_means(code: int) -> None:
    if code == ClientExit.GATE_BLOCKED:
        typer.echo(f"\n{BLOCKED}")
    if code in FINISHED:
        typer.echo(
            "\nThe page above answers while the control plane runs. To start it again,\n"
            f"with this run in it (on port 7460): {typed('picochat')} up"
        )


def _keep(plane: Child, url: str) -> None:
    typer.echo(f"\nstill up at {url}; Ctrl-C stops it")
    try:
        plane.wait()
    except KeyboardInterrupt:
        typer.echo("stopping")


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM leaves by way of `finally`, so that nothing stays behind."""
    raise SystemExit(128 + number)


def _refused(message: str) -> typer.Exit:
    typer.echo(f"picochat demo: {message}", err=True)
    return typer.Exit(ClientExit.USAGE)
