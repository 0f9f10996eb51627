"""`picochat worker` (also `picochat-worker`): claim stages from a control plane and run them.

    picochat worker --url http://host:7460 --key KEY --poll
    picochat worker --url http://host:7460 --key KEY --broker redis://host:6379/0

Options win over PICOCHAT_WORKER_* variables. SIGTERM interrupts the running stage with a checkpoint and
leaves; a second one kills it. Exit codes: 0 told to stop, 1 the server refuses the key, 64 usage.
"""

import logging
import os
import platform
import signal
import threading
from pathlib import Path
from typing import Any

import typer
from picochat_contract.api import Claim, ClaimIn
from pydantic import ValidationError

from picochat_worker import celery_app
from picochat_worker.control_plane import ControlPlane
from picochat_worker.errors import Rejected, WorkDirInUse
from picochat_worker.host import describe_device
from picochat_worker.poller import Poller
from picochat_worker.process_tree import kill_orphans
from picochat_worker.settings import WORK_DIR_MARK, WorkerSettings
from picochat_worker.stop_request import StopRequest
from picochat_worker.supervisor import Attempt
from picochat_worker.workspace import clean_workspaces, held_work_dir

EXIT_REFUSED = 1
EXIT_USAGE = 64
STOP_CELERY_SECONDS = 1.0
logger = logging.getLogger(__name__)
app = typer.Typer(help="Claim stages from a control plane and run them.", add_completion=False)


@app.callback(invoke_without_command=True)
def worker(
    url: str = typer.Option(None, help="Address of the control plane."),
    key: str = typer.Option(None, help="Key with the scope `worker` (better: PICOCHAT_WORKER_API_KEY)."),
    name: str = typer.Option(None, help="Name on the workers page; default: this host's."),
    work_dir: Path = typer.Option(None, help="Folder of this worker alone."),
    broker: str = typer.Option(
        None, help="redis:// address of the hints; the worker polls now and then too."
    ),
    poll: bool = typer.Option(False, "--poll", help="Only poll, whatever the environment says of a broker."),
    once: bool = typer.Option(False, "--once", help="Ask for work once, run what comes, and leave."),
) -> None:
    """Claim stages from a control plane and run them."""
    if poll and broker:
        raise typer.BadParameter("give --poll or --broker, not both")
    given = {"url": url, "api_key": key, "name": name, "work_dir": work_dir, "broker_url": broker}
    settings = _settings({field: value for field, value in given.items() if value is not None})
    if poll or once:
        settings = settings.model_copy(update={"broker_url": None})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every heartbeat
    raise typer.Exit(run_worker(settings, once=once))


def run_worker(settings: WorkerSettings, *, once: bool = False) -> int:
    """Work until told to stop; return the exit code. Belongs into the main thread."""
    try:
        with held_work_dir(settings.home):
            for process in kill_orphans(f"{WORK_DIR_MARK}={settings.home}"):
                logger.error("process %d of an earlier attempt cannot be killed", process.pid)
            clean_workspaces(settings.home)
            return _work(settings, once=once)
    except WorkDirInUse as error:
        typer.echo(f"picochat worker: {error}", err=True)
        return EXIT_USAGE
    except Rejected as error:
        typer.echo(f"picochat worker: {error}; give a key with the scope `worker`", err=True)
        return EXIT_REFUSED


def _settings(given: dict[str, Any]) -> WorkerSettings:
    try:
        return WorkerSettings(**given)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        typer.echo("picochat worker: " + "; ".join(lines), err=True)
        raise typer.Exit(EXIT_USAGE) from error


def _work(settings: WorkerSettings, *, once: bool) -> int:
    stop = StopRequest()
    control_plane = ControlPlane(
        settings.url, settings.api_key.get_secret_value(), timeout_seconds=settings.request_timeout_seconds
    )

    def supervise(claim: Claim, claimed_at: float) -> None:
        Attempt(settings, control_plane, claim, claimed_at=claimed_at, stop=stop).run()

    ask = ClaimIn(worker=settings.name, host=platform.node(), device=describe_device(settings.device))
    poller = Poller(
        claim=control_plane.claim,
        supervise=supervise,
        ask=ask,
        poll_seconds=settings.fallback_poll_seconds if settings.broker_url else settings.poll_seconds,
        stop=stop,
    )
    try:
        if settings.broker_url:
            return _work_on_hints(settings, settings.broker_url, poller, stop)
        stop.listen()
        logger.info("worker %s polls %s", settings.name, settings.url)
        poller.run(once=once)
        return 0
    finally:
        control_plane.close()


def _work_on_hints(settings: WorkerSettings, broker_url: str, poller: Poller, stop: StopRequest) -> int:
    """Celery has the main thread and its signals; stages run in the poller's thread, one at a time."""
    failures: list[Exception] = []
    served = threading.Event()

    def poll() -> None:
        try:
            poller.run()
        except Exception as error:  # the edge of the thread: the process must not live on without it
            logger.exception("the polling thread failed")
            failures.append(error)
        # More than once: Celery forgets a signal that comes while it is still starting.
        while not served.wait(STOP_CELERY_SECONDS):
            os.kill(os.getpid(), signal.SIGTERM)

    stop.listen()  # until Celery installs its own handlers
    thread = threading.Thread(target=poll, name="poller")
    thread.start()
    try:
        code = celery_app.serve(
            celery_app.make_app(broker_url, settings.queue, poller.offer),
            name=settings.name,
            on_stop=stop.request,
        )
    finally:
        stop.request()
        served.set()
        thread.join()
    if failures:
        raise failures[0]
    return code
