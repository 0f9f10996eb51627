"""Child processes of `picochat up` and `picochat demo`: started in a group of their own, ended by their id, or by
the kernel when the thread that started them ends."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from picochat_server import launcher
from picochat_server.settings import Settings

logger = logging.getLogger(__name__)
STOP_SECONDS = 75  # a worker may take 60 s for a last checkpoint
MAX_PAUSE_SECONDS = 30.0
USAGE = 64  # a worker's exit code where starting it again would not help
OWN_WORKER = "embedded"
LAUNCHER = (sys.executable, "-I", "-S", launcher.__file__)
POLL_SECONDS = 0.5  # on the same machine a poll costs a millisecond


class Child:
    """One process with a log file. `stop` is patient, `kill` is not."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*LAUNCHER, str(os.getpid()), "--", *command],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal reaches us, and we tell it in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code; None if it still runs after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, patience_seconds: float = STOP_SECONDS) -> None:
        """SIGTERM and wait; whatever is left of its group after the patience is killed."""
        if self._process.poll() is None:
            self._process.terminate()
            self.wait(patience_seconds)
        self.kill()

    def kill(self) -> None:
        """End the whole group now. The group outlives its leader only where something was left behind."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    def log_tail(self, num_lines: int = 15) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-num_lines:]
        return "\n".join(f"    {line}" for line in lines)


class KeptAlive:
    """A worker that is started again when it dies: its stage goes on from the last checkpoint.

    Make it in the main thread. The watching thread lives as long as the worker that it started, for the kernel
    ends a child with the thread that started it.
    """

    def __init__(self, settings: Settings, url: str, key: str) -> None:
        self._settings = settings
        self._url = url
        self._key = key
        self._stopping = threading.Event()
        self._child = self._start()
        self._thread = threading.Thread(target=self._watch, name="picochat-worker-watch", daemon=True)
        self._thread.start()

    @property
    def log(self) -> Path:
        return self._child.log

    def stop(self) -> None:
        self._stopping.set()
        self._child.stop()
        self._thread.join(5)

    def kill(self) -> None:
        self._stopping.set()
        self._child.kill()

    def _start(self) -> Child:
        return start_worker(self._settings, self._url, self._key)

    def _watch(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            started = time.monotonic()
            self._child.wait()
            if self._stopping.is_set():
                return
            if self._child.exit_code == USAGE:
                logger.error(
                    "the worker cannot run; no new one is started", extra={"log": str(self._child.log)}
                )
                return
            pause = 1.0 if time.monotonic() - started > 60 else min(pause * 2, MAX_PAUSE_SECONDS)
            logger.warning(
                "the worker ended; it is started again",
                extra={"exit_code": self._child.exit_code, "log": str(self._child.log), "pause": pause},
            )
            if not self._stopping.wait(pause):
                self._child = self._start()


def start_worker(settings: Settings, url: str, key: str) -> Child:
    """The embedded worker: polls, and links its inputs from the store on the same disk."""
    home = settings.home.resolve()
    environment = {
        **without_settings(),
        "PICOCHAT_WORKER_URL": url,
        "PICOCHAT_WORKER_API_KEY": key,
        "PICOCHAT_WORKER_NAME": OWN_WORKER,
        "PICOCHAT_WORKER_WORK_DIR": str(home / "worker"),
        "PICOCHAT_WORKER_STORE_DIR": str(settings.artifacts.resolve()),
        "PICOCHAT_WORKER_POLL_SECONDS": str(POLL_SECONDS),
        **{name: value for name, value in os.environ.items() if name.startswith("PICOCHAT_WORKER_")},
    }
    command = [program("picochat-worker"), "--poll"]
    return Child("worker", command, environment, home / "worker.log")


def without_settings() -> dict[str, str]:
    """This process's environment without its PICOCHAT_* settings: a child is told what it needs."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PICOCHAT_")}


def program(name: str) -> str:
    """The path of one of our programs: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; pip install 'picochat[all]' brings it")
    return found
