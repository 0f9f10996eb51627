"""What happens before the first request: migrate the database, then make the first project and keys.

Two servers that start at once migrate once: on Postgres under an advisory lock held by a connection of its
own, on SQLite under a lock file. A database that is ahead of this code, or not ours, is refused.
"""

import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import picochat_migrations
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, make_url, text
from sqlalchemy.orm import Session

from picochat_server.auth import audit, repository
from picochat_server.auth.principal import Principal
from picochat_server.auth.service import ensure_project, make_key, principal_of
from picochat_server.db import Base, make_engine, make_sessions, transaction
from picochat_server.models import ApiKey
from picochat_server.settings import Settings

logger = logging.getLogger(__name__)
DEFAULT_PROJECT = "default"
CONSOLE = "console"
CLIENT_FILE = "client.json"
WORKER_KEY_FILE = "worker.key"
SECRET_FILE = "secret.key"  # noqa: S105 - the name of a file
MIGRATION_LOCK = 7_460_001  # an arbitrary number that only migrations of picochat use
LOCK_PATIENCE_SECONDS = 120
KNOWN_TABLES = frozenset(Base.metadata.tables)


class DatabaseRefused(Exception):  # noqa: N818 - reads as what happened
    """The database is not one that this version may touch; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class FirstStart:
    """Where the keys of this home lie."""

    client_file: Path
    worker_key_file: Path
    made_keys: bool


# --- the schema ---


def migrate(settings: Settings, *, revision: str = "head") -> None:
    """Bring the database to `revision` under the lock; does nothing where it is there already."""
    prepare_folders(settings)
    with _engine(settings) as engine, _migration_lock(engine, settings):
        with engine.connect() as connection:
            current = _refuse_foreign(connection)
            connection.rollback()
            if current == _head() and revision == "head":
                return
            if current is not None:
                _copy_sqlite(connection, settings, current)
            command.upgrade(alembic_config(connection), revision)  # env.py begins and commits
        logger.info("database migrated", extra={"from": current, "to": revision})


def downgrade(settings: Settings, revision: str) -> None:
    """Go back to `revision` (`base` empties the database). For tests and for people, never at a start."""
    with _engine(settings) as engine, _migration_lock(engine, settings), engine.connect() as connection:
        _refuse_foreign(connection)
        connection.rollback()
        command.downgrade(alembic_config(connection), revision)


def check_current(settings: Settings) -> str:
    """The revision of the database if it is the newest; raise DatabaseRefused otherwise."""
    with _engine(settings) as engine, engine.connect() as connection:
        current = _refuse_foreign(connection)
    if current != _head():
        raise DatabaseRefused(
            f"the database is at revision {current or 'nothing'}, this version needs {_head()}; "
            "run `picochat-server db upgrade`"
        )
    return current


def differences(settings: Settings) -> list[Any]:
    """What differs between the models and the migrated database; empty when they are in step."""
    with _engine(settings) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def write_revision(settings: Settings, message: str) -> str:
    """Write a revision that brings the migrated database to the models; return its path."""
    with _engine(settings) as engine, engine.connect() as connection:
        number = f"{int(_head()) + 1:04d}"
        script = command.revision(alembic_config(connection), message, autogenerate=True, rev_id=number)
    assert isinstance(script, Script), "one revision was asked for"
    return script.path


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made in code: there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(picochat_migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["metadata"] = Base.metadata
    config.attributes["connection"] = connection
    return config


def prepare_folders(settings: Settings) -> None:
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if make_url(settings.url).get_backend_name() == "sqlite":
        _sqlite_file(settings).parent.mkdir(parents=True, exist_ok=True)


# --- first project, first keys ---


def first_start(settings: Settings, session: Session, *, url: str) -> FirstStart:
    """Make what is missing: the project, an admin key in client.json, a worker key in worker.key."""
    project = ensure_project(session, DEFAULT_PROJECT)
    client_file = settings.home / CLIENT_FILE
    worker_file = settings.home / WORKER_KEY_FILE
    admin = _stored_key(session, client_key(client_file))
    if admin is None:
        _, admin = console_key(session, project.id, "first admin", ["admin"])
    worker = _stored_key(session, worker_file.read_text().strip() if worker_file.exists() else "")
    made_worker = worker is None
    if worker is None:
        _, worker = console_key(session, project.id, "embedded worker", ["worker"])
    made = made_worker or client_key(client_file) != admin
    write_private(client_file, json.dumps({"url": url, "api_key": admin}) + "\n")
    write_private(worker_file, worker + "\n")
    return FirstStart(client_file=client_file, worker_key_file=worker_file, made_keys=made)


def console_key(
    session: Session,
    project_id: str,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Make a key for whoever has the machine; the audit trail calls that actor `console`."""
    key, secret = make_key(session, project_id, name, scopes, expires_at)
    console = Principal(key_id=CONSOLE, project_id=project_id, scopes=frozenset())
    audit.record(session, console, "key.create", key.id, name=name, scopes=key.scopes)
    return key, secret


def with_secret(settings: Settings) -> Settings:
    """The settings with a secret: the given one, else that of home/secret.key, made if it is not there."""
    if settings.secret_key:
        return settings
    path = settings.home / SECRET_FILE
    prepare_folders(settings)
    with _file_lock(path.with_suffix(".lock")):
        if not path.exists():
            write_private(path, secrets.token_urlsafe(48) + "\n")
    return settings.model_copy(update={"secret_key": path.read_text().strip()})


def has_keys(settings: Settings) -> bool:
    with _engine(settings) as engine, transaction(make_sessions(engine)) as session:
        return repository.count_keys(session) > 0


def client_key(path: Path) -> str:
    """The key in a client file; empty where there is none."""
    try:
        return str(json.loads(path.read_text()).get("api_key", ""))
    except (OSError, ValueError, AttributeError):
        return ""  # not there, or not ours: a new one is written


def write_private(path: Path, content: str) -> None:
    """Write a file that only its owner reads, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(number, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _stored_key(session: Session, secret: str) -> str | None:
    return secret if principal_of(session, secret) else None


# --- locks and checks ---


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings.url, pool_size=2)
    try:
        yield engine
    finally:
        engine.dispose()


def _head() -> str:
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    assert head is not None, "there is at least one revision"
    return head


def _refuse_foreign(connection: Connection) -> str | None:
    """The database's revision; raise DatabaseRefused where it is ahead of this code or not ours."""
    tables = set(inspect(connection).get_table_names())
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None:
        if tables & KNOWN_TABLES:
            raise DatabaseRefused(
                f"the database has tables such as {sorted(tables & KNOWN_TABLES)[0]!r} but no revision: it was not "
                "made by picochat's migrations; give another database with PICOCHAT_DATABASE_URL"
            )
        return None
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if current not in known:
        raise DatabaseRefused(
            f"the database is at revision {current!r}, which this version does not know: it was migrated by a "
            "newer picochat; install that version, or restore the copy made before the upgrade"
        )
    return current


@contextmanager
def _migration_lock(engine: Engine, settings: Settings) -> Iterator[None]:
    if engine.dialect.name == "sqlite":
        with _file_lock(_sqlite_file(settings).with_suffix(".migrate.lock")):
            yield
        return
    with engine.connect() as connection:  # its own: a session lock dies with the connection that took it
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}):
            connection.commit()  # never wait inside a transaction: it would hold back vacuum and others
            if time.monotonic() > deadline:
                raise DatabaseRefused("another server has been migrating this database for two minutes")
            time.sleep(0.2)
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
            connection.commit()


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sqlite_file(settings: Settings) -> Path:
    return Path(make_url(settings.url).database or "").resolve()


def _copy_sqlite(connection: Connection, settings: Settings, revision: str) -> None:
    """Keep a copy of a SQLite file before its schema changes. Postgres has backups of its own."""
    if connection.dialect.name != "sqlite":
        return
    copy = _sqlite_file(settings).with_suffix(f".before-{revision}.db")
    copy.unlink(missing_ok=True)
    driver: Any = connection.connection.dbapi_connection
    driver.execute("VACUUM INTO ?", (str(copy),))
