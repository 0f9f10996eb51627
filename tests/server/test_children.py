"""The worker beside `picochat up`: started again when it dies, and always given the time to leave in order."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from picochat_server import children
from picochat_server.children import Child, KeptAlive
from picochat_server.settings import Settings

POLITE = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def leave(number, frame):
    time.sleep(0.7)  # a last checkpoint
    (folder / f"left.{os.getpid()}").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
(folder / f"ready.{os.getpid()}").touch()
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeptAlive]:
    def start(settings: Settings, url: str, key: str) -> Child:
        command = [sys.executable, "-c", POLITE, str(tmp_path)]
        return Child("worker", command, os.environ, tmp_path / "log")

    monkeypatch.setattr(children, "start_worker", start)
    kept = KeptAlive(Settings(home=tmp_path), "http://127.0.0.1:1", "key")
    yield kept
    kept.kill()


def _until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _pids(folder: Path, mark: str) -> list[int]:
    return sorted(int(file.suffix[1:]) for file in folder.glob(f"{mark}.*"))


def test_worker_that_was_started_again_leaves_in_order(kept: KeptAlive, tmp_path: Path) -> None:
    """The thread that started it must not end first: the kernel would end the worker with it."""
    _until(lambda: len(_pids(tmp_path, "ready")) == 1)
    (first,) = _pids(tmp_path, "ready")
    os.kill(first, signal.SIGKILL)
    _until(lambda: len(_pids(tmp_path, "ready")) == 2)
    (second,) = set(_pids(tmp_path, "ready")) - {first}
    kept.stop()
    assert _pids(tmp_path, "left") == [second]


def test_command_that_is_not_there_is_told_in_the_log(tmp_path: Path) -> None:
    child = Child("worker", [str(tmp_path / "nothing")], os.environ, tmp_path / "log")
    assert child.wait(20) == 127
    assert "cannot start" in child.log_tail()
