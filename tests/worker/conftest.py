"""A fake control plane, fake stages, and workers: in this process for most tests, as processes for some."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.api import Claim, ClaimIn
from picochat_contract.manifest import StageJob
from picochat_contract.stages import StageName
from picochat_worker.control_plane import ControlPlane
from picochat_worker.settings import WorkerSettings
from picochat_worker.stop_request import StopRequest
from picochat_worker.supervisor import Attempt as WorkerAttempt

from .fake_server import KEY, Attempt, FakeServer

FAKE_STAGE = Path(__file__).with_name("fake_stage.py")
WORKER_PROGRAM = "from picochat_worker.commands import app; app()"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Return the first true answer of `condition`."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)
    return answer


def make_claim(**given: object) -> Claim:
    fields = {
        "attempt": "att_1",
        "run": "run_1",
        "run_name": "r",
        "stage": "stg_1",
        "lease_token": "t",
        "epoch": 3,
        "lease_seconds": 30,
        "grace_seconds": 15,
        "job": StageJob(stage=StageName.BASE, config={}),
        "inputs": [],
        "sources": [],
        "resume": None,
    }
    return Claim.model_validate({**fields, **given})


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Meeting:
    """The folder where a test and its stage leave notes for each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def pid(self, name: str = "stage") -> int:
        path = self.folder / f"{name}.pid"
        return int(wait_for(lambda: path.exists() and path.read_text(), f"{name} to say its pid"))

    def tell(self, name: str = "go") -> None:
        (self.folder / name).touch()


class Bench:
    """One worker in this process: claim the next stage and run it, here or beside the test."""

    def __init__(self, server: FakeServer, settings: WorkerSettings) -> None:
        self.server = server
        self.settings = settings
        self.stop = StopRequest()
        self.control_plane = ControlPlane(server.url, KEY, timeout_seconds=settings.request_timeout_seconds)
        self._threads: list[threading.Thread] = []

    def run(self) -> Attempt:
        asked_at = time.monotonic()
        claim = self.control_plane.claim(ClaimIn(worker="w", host="h", device="cpu"))
        assert claim, "the server has no stage"
        attempt = WorkerAttempt(self.settings, self.control_plane, claim, claimed_at=asked_at, stop=self.stop)
        attempt.run()
        return self.server.attempts[claim.attempt]

    def start(self) -> threading.Thread:
        """Run in a thread, which has to live as long as its stage."""
        thread = threading.Thread(target=self.run)
        self._threads.append(thread)
        thread.start()
        return thread

    def close(self) -> None:
        for _ in range(2):
            self.stop.request()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "the worker did not stop"
        self.control_plane.close()


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    server.start()
    yield server
    server.hold_uploads.set()
    server.stop()


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path / "meeting")


@pytest.fixture
def add_stage(server: FakeServer, meeting: Meeting) -> Callable[..., str]:
    """Queue a stage that shows a behaviour of fake_stage.py; more keywords go to `FakeServer.add_stage`."""

    def add(behaviour: str, config: dict[str, Any] | None = None, **how: Any) -> str:
        described = {"behaviour": behaviour, "folder": str(meeting.folder), **(config or {})}
        return server.add_stage(described, **how)

    return add


@pytest.fixture
def make_settings(server: FakeServer, tmp_path: Path) -> Callable[..., WorkerSettings]:
    def make(**given: Any) -> WorkerSettings:
        defaults = {
            "url": server.url,
            "api_key": KEY,
            "work_dir": tmp_path / "work",
            "stage_command": (sys.executable, str(FAKE_STAGE)),
            "tick_seconds": 0.02,
        }
        return WorkerSettings(**{**defaults, **given})

    return make


@pytest.fixture
def make_bench(
    server: FakeServer, make_settings: Callable[..., WorkerSettings]
) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(**settings: Any) -> Bench:
        benches.append(Bench(server, make_settings(**settings)))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()


@pytest.fixture
def start_worker(server: FakeServer, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Start `picochat worker ARGUMENTS` as a process; its output lies in tmp_path/worker-<n>.out."""
    workers: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **settings: str) -> "subprocess.Popen[bytes]":
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PICOCHAT_")},
            "PICOCHAT_WORKER_URL": server.url,
            "PICOCHAT_WORKER_API_KEY": KEY,
            "PICOCHAT_WORKER_WORK_DIR": str(tmp_path / "work"),
            "PICOCHAT_WORKER_STAGE_COMMAND": f'["{sys.executable}", "{FAKE_STAGE}"]',
            "PICOCHAT_WORKER_POLL_SECONDS": "0.2",
            **{f"PICOCHAT_WORKER_{name.upper()}": value for name, value in settings.items()},
        }
        command = [sys.executable, "-c", WORKER_PROGRAM, *(arguments or ("--poll",))]
        with (tmp_path / f"worker-{len(workers)}.out").open("wb") as output:
            workers.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
        worker.wait(10)
