"""Shared fixtures: real Postgres and Redis servers, found or started; sockets stay on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import postgres, redis


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A fresh Postgres database, dropped at the end; skips loudly where no server can be had."""
    with postgres.fresh_database(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A private Redis or Valkey server: tests may flush it."""
    with redis.private_server(Path(tmp_path_factory.mktemp("redis"))) as url:
        yield url
