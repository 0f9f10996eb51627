"""Fixtures: the server in memory, a client on it, time that passes by sleeping, the command line."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from picochat_client import Client
from picochat_client.cli import main

from .fake_server import FakeServer
from .scripted import KEY, URL


class FakeClock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PICOCHAT_URL", "PICOCHAT_API_KEY", "PICOCHAT_HOME", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(server: FakeServer, clock: FakeClock) -> Iterator[Client]:
    with Client(URL, KEY, transport=httpx.MockTransport(server.handle), clock=clock) as opened:
        yield opened


@pytest.fixture
def cli(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Run `picochat-client` in this process; gives (exit code, stdout, stderr)."""
    monkeypatch.setenv("PICOCHAT_API_KEY", KEY)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments), transport=httpx.MockTransport(server.handle))
        captured = capsys.readouterr()
        return int(code), captured.out, captured.err

    return run
