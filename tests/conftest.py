"""Shared fixtures: real Postgres and Redis servers, found or started; sockets stay on this machine."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import postgres, redis


def pytest_configure() -> None:
    """A job in the background inherits an ignored SIGINT, and so would the processes that tests interrupt."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Make fresh Postgres databases, dropped at the end; skips loudly where no server can be had."""
    with postgres.databases(tmp_path_factory.mktemp("postgres")) as make:
        yield make


@pytest.fixture
def postgres_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private Redis or Valkey server: tests may flush it."""
    with redis.private_server(Path(tmp_path_factory.mktemp("redis"))) as url:
        yield url
