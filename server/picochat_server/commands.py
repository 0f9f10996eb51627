"""`picochat-server` (also `picochat server`): the control plane of a team.

    picochat-server start --host 0.0.0.0 --database-url postgresql://... --broker-url redis://...
    picochat-server db upgrade | db check | db revision MESSAGE
    picochat-server keys create --name ci --scopes runs:read,runs:write
    picochat-server openapi

Without a command it starts. Options win over PICOCHAT_* variables. Exit codes: 0 stopped, 64 refused to start,
75 the database does not answer.
"""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from picochat_contract.api import SCOPES
from picochat_contract.exit_codes import ClientExit
from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError
from typer.core import TyperGroup

from picochat_server import bootstrap, logs, serving
from picochat_server.app import create_app, dispose
from picochat_server.auth.service import ensure_project
from picochat_server.db import make_engine, make_sessions, transaction
from picochat_server.settings import Settings

logger = logging.getLogger(__name__)
PROGRAM = "picochat server"


class StartsByDefault(TyperGroup):
    """`picochat-server --port 8000` means `picochat-server start --port 8000`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="server", cls=StartsByDefault, help="Run the control plane of a team.", add_completion=False
)
db_app = typer.Typer(help="The database's schema.")
keys_app = typer.Typer(help="API keys, where no server runs yet.")
app.add_typer(db_app, name="db")
app.add_typer(keys_app, name="keys")

Host = Annotated[str | None, typer.Option(help="Address to listen on; one that is not loopback needs a key.")]
Port = Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="postgresql://... or sqlite:///...; default: a file in home."),
]
BrokerUrl = Annotated[
    str | None, typer.Option("--broker-url", help="redis://... for hints; without it workers poll.")
]
AllowUnreleased = Annotated[
    bool, typer.Option("--allow-unreleased", help="Serve models that no approved verdict covers, and say so.")
]


@app.command()
def start(
    host: Host = None,
    port: Port = None,
    database_url: DatabaseUrl = None,
    broker_url: BrokerUrl = None,
    allow_unreleased: AllowUnreleased = False,
) -> None:
    """Migrate the database and serve until SIGINT or SIGTERM."""
    logs.configure()
    settings = read_settings(
        host=host,
        port=port,
        database_url=database_url,
        broker_url=broker_url,
        allow_unreleased=allow_unreleased or None,
    )
    with refusals():
        bootstrap.migrate(settings)
        _refuse_open_bind(settings)
        with serving.bind(settings.host, settings.port) as listener:
            url = serving.address_of(listener, settings.host)
            if settings.is_loopback:
                make_first_keys(settings, url)
            typer.echo(f"picochat server {url}, database {_shown(settings.url)}", err=True)
            serving.serve(create_app(settings), listener)


@db_app.command("upgrade")
def db_upgrade(database_url: DatabaseUrl = None) -> None:
    """Bring the database to this version's schema."""
    logs.configure()
    settings = read_settings(database_url=database_url)
    with refusals():
        bootstrap.migrate(settings)
        typer.echo(f"{_shown(settings.url)} is at revision {bootstrap.check_current(settings)}")


@db_app.command("check")
def db_check() -> None:
    """Check that migrations and models are in step, on a scratch database."""
    with scratch_settings() as settings:
        bootstrap.migrate(settings)
        differences = bootstrap.differences(settings)
    if differences:
        typer.echo("the migrations do not give what the models say:", err=True)
        for difference in differences:
            typer.echo(f"    {difference}", err=True)
        typer.echo(f"write a revision: {PROGRAM} db revision 'What changed'", err=True)
        raise typer.Exit(1)
    typer.echo("migrations and models are in step")


@db_app.command("revision")
def db_revision(message: Annotated[str, typer.Argument(help="What changed, imperative.")]) -> None:
    """Write a revision from the difference between migrations and models; for developers."""
    with scratch_settings() as settings:
        bootstrap.migrate(settings)
        typer.echo(bootstrap.write_revision(settings, message))


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scopes: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(SCOPES)}.")],
    project: Annotated[
        str, typer.Option(help="Project; made if it is not there.")
    ] = bootstrap.DEFAULT_PROJECT,
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Days until it stops working.")] = None,
    database_url: DatabaseUrl = None,
) -> None:
    """Make a key straight in the database. The secret goes to standard output and is not shown again."""
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    if not wanted or not set(wanted) <= set(SCOPES):
        raise _refused(f"--scopes: expected some of {', '.join(SCOPES)}; got {scopes!r}")
    settings = read_settings(database_url=database_url)
    expires_at = datetime.now(UTC) + timedelta(days=expires_in_days) if expires_in_days else None
    with refusals():
        bootstrap.migrate(settings)
        engine = make_engine(settings.url)
        with transaction(make_sessions(engine)) as session:
            owner = ensure_project(session, project)
            key, secret = bootstrap.console_key(session, owner.id, name, wanted, expires_at)
        engine.dispose()
    typer.echo(secret)
    typer.echo(
        f"key {key.id} ({name}) of project {project}: this is the only time that its secret is shown",
        err=True,
    )


@app.command()
def openapi() -> None:
    """Print openapi.json."""
    with scratch_settings() as settings:
        typer.echo(json.dumps(openapi_of(settings), indent=2, sort_keys=True, ensure_ascii=False))


def openapi_of(settings: Settings) -> dict[str, Any]:
    control_plane = create_app(settings)
    try:
        return control_plane.openapi()
    finally:
        dispose(control_plane)


def read_settings(**given: Any) -> Settings:
    """Settings from the environment, below the options that were given; exit 64 where one is wrong."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise _refused("; ".join(lines)) from error


def make_first_keys(settings: Settings, url: str) -> bootstrap.FirstStart:
    """Project, admin key and worker key of a loopback server, in files that only this user reads."""
    engine = make_engine(settings.url)
    try:
        with transaction(make_sessions(engine)) as session:
            return bootstrap.first_start(settings, session, url=url)
    finally:
        engine.dispose()


@contextmanager
def refusals() -> Iterator[None]:
    """Turn what keeps a server from starting into one line and an exit code."""
    try:
        yield
    except (bootstrap.DatabaseRefused, serving.PortTakenError) as error:
        raise _refused(str(error)) from error
    except OperationalError as error:
        typer.echo(f"{PROGRAM}: the database does not answer: {error.orig}", err=True)
        raise typer.Exit(ClientExit.UNREACHABLE) from error


@contextmanager
def scratch_settings() -> Iterator[Settings]:
    """Settings of an empty home, whatever the environment says."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        yield Settings(home=home, database_url="", artifact_dir=None, secret_key="scratch")  # noqa: S106


def _refuse_open_bind(settings: Settings) -> None:
    if not settings.is_loopback and not bootstrap.has_keys(settings):
        raise _refused(
            f"will not listen on {settings.host}, which others can reach, before a key exists; make one: "
            "picochat-server keys create --name admin --scopes admin"
        )


def _refused(message: str) -> typer.Exit:
    typer.echo(f"{PROGRAM}: {message}", err=True)
    return typer.Exit(ClientExit.USAGE)


def _shown(url: str) -> str:
    """A database URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


if __name__ == "__main__":
    app()
