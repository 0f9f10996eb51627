"""Shared fixtures: real Postgres and Redis servers, found or started; sockets stay on this machine."""

import os
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
    if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several workers wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: none of them is left to one worker alone in the end."""
    long = {item.path for item in items if any(item.iter_markers("slow")) or any(item.iter_markers("e2e"))}
    items.sort(key=lambda item: item.path not in long)


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
