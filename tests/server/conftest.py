"""An app with a migrated database for each test: SQLite always, Postgres where one can be had.

The schema is made once: SQLite tests copy a template file, Postgres tests empty the tables of one database.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from picochat_server import bootstrap
from picochat_server.app import create_app, dispose
from picochat_server.db import Base, make_engine
from picochat_server.settings import Settings
from sqlalchemy import text
from support.apps import client_with, new_key, new_project

LEASE_SECONDS = 30.0
GRACE_SECONDS = 15.0


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    bootstrap.migrate(Settings(home=home, database_url=""))
    engine = make_engine(f"sqlite:///{home / 'picochat.db'}")
    with engine.connect() as connection:  # everything into the one file that is copied
        connection.connection.dbapi_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr, attr-defined]
    engine.dispose()
    return home / "picochat.db"


@pytest.fixture(scope="session")
def migrated_postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    url: str = request.getfixturevalue("new_database")()
    bootstrap.migrate(Settings(home=tmp_path_factory.mktemp("pg"), database_url=url))
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty, migrated database."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        (tmp_path / "home").mkdir()
        shutil.copyfile(template, tmp_path / "home" / "picochat.db")
        return f"sqlite:///{tmp_path / 'home' / 'picochat.db'}"
    url: str = request.getfixturevalue("migrated_postgres")
    _empty(url)
    return url


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        database_url=database_url,
        secret_key="test secret",
        lease_seconds=LEASE_SECONDS,
        grace_seconds=GRACE_SECONDS,
    )


@pytest.fixture
def app(settings: Settings) -> Iterator[FastAPI]:
    """The app without its background loops: tests run a round themselves."""
    bootstrap.prepare_folders(settings)
    app = create_app(settings)
    app.state.started_at = float("-inf")  # long up: nothing waits for workers to come back
    yield app
    dispose(app)


@pytest.fixture
def project_id(app: FastAPI) -> str:
    return new_project(app)


@pytest.fixture
def admin_key(app: FastAPI, project_id: str) -> str:
    return new_key(app, project_id, "admin")


@pytest.fixture
def worker_key(app: FastAPI, project_id: str) -> str:
    return new_key(app, project_id, "worker")


@pytest.fixture
def client(app: FastAPI, admin_key: str) -> TestClient:
    """Speaks with an admin key."""
    return client_with(app, admin_key)


@pytest.fixture
def worker(app: FastAPI, worker_key: str) -> TestClient:
    """Speaks with a worker key."""
    return client_with(app, worker_key)


def _empty(url: str) -> None:
    """Delete all rows: a few milliseconds, where TRUNCATE makes new files for every table."""
    tables = [table.name for table in reversed(Base.metadata.sorted_tables)]
    engine = make_engine(url)
    with engine.begin() as connection:
        seen = (f"SELECT '{name}' WHERE EXISTS (SELECT FROM \"{name}\")" for name in tables)
        filled = set(connection.execute(text(" UNION ALL ".join(seen))).scalars())
        for name in tables:
            if name in filled:
                connection.execute(text(f'DELETE FROM "{name}"'))
        connection.execute(
            text("SELECT setval(format('%I.%I', schemaname, sequencename), 1, false) FROM pg_sequences")
        )
    engine.dispose()
