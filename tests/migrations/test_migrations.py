"""Migrations on both databases: in step with the models, both ways with rows kept, once for two servers."""

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from picochat_migrations import __file__ as migrations_file
from picochat_server import bootstrap
from picochat_server.auth.service import ensure_project
from picochat_server.db import make_engine, make_sessions, transaction
from picochat_server.models import Event, Run, Stage
from picochat_server.settings import Settings
from sqlalchemy import Engine, func, inspect, select, text

HEAD = ScriptDirectory.from_config(bootstrap.alembic_config()).get_current_head()
REVISIONS = [
    script.revision for script in ScriptDirectory.from_config(bootstrap.alembic_config()).walk_revisions()
][::-1]


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of an empty database."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return Settings(home=tmp_path / "home", database_url=url, secret_key="test")


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    bootstrap.prepare_folders(settings)
    engine = make_engine(settings.url)
    yield engine
    engine.dispose()


def _fill(engine: Engine) -> None:
    """A run with a stage and an event: parents whose children have ON DELETE CASCADE."""
    now = datetime.now(UTC)
    with transaction(make_sessions(engine)) as session:
        project = ensure_project(session, "default")
        run = Run(
            id="run_1", project_id=project.id, name="r", spec={}, scale="smoke", gate_profile="none",
            state="queued", desired_state="running", metrics={}, event_seq=1, created_at=now,
        )  # fmt: skip
        session.add(run)
        session.flush()
        session.add(
            Stage(
                id="stg_1", run_id="run_1", name="dataset", position=0, config={}, needs=[], state="queued",
                desired_state="running", epoch=0, num_attempts=0, max_attempts=3, checkpoint_now=False, metrics={},
            )
        )  # fmt: skip
        session.add(Event(run_id="run_1", seq=1, time=now, type="state", data={}))


def _counts(engine: Engine) -> list[int]:
    with transaction(make_sessions(engine)) as session:
        return [session.scalar(select(func.count()).select_from(model)) or 0 for model in (Run, Stage, Event)]


def test_migrations_give_what_the_models_say(settings: Settings) -> None:
    bootstrap.migrate(settings)
    assert bootstrap.differences(settings) == []
    assert bootstrap.check_current(settings) == HEAD


def test_a_model_that_went_ahead_is_noticed(settings: Settings, engine: Engine) -> None:
    bootstrap.migrate(settings)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE worker DROP COLUMN device"))
    assert "device" in str(bootstrap.differences(settings))


def test_migrating_twice_changes_nothing(settings: Settings, engine: Engine) -> None:
    bootstrap.migrate(settings)
    _fill(engine)
    bootstrap.migrate(settings)
    assert _counts(engine) == [1, 1, 1]


@pytest.mark.parametrize("revision", REVISIONS)
def test_each_revision_goes_both_ways(settings: Settings, engine: Engine, revision: str) -> None:
    bootstrap.migrate(settings, revision=revision)
    step_before = "base" if revision == REVISIONS[0] else REVISIONS[REVISIONS.index(revision) - 1]
    bootstrap.downgrade(settings, step_before)
    if step_before == "base":
        assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    bootstrap.migrate(settings)
    assert bootstrap.differences(settings) == []


def test_a_blocked_run_is_a_failed_one_to_the_code_before(settings: Settings, engine: Engine) -> None:
    bootstrap.migrate(settings)
    _fill(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE run SET state = 'blocked'"))
    engine.dispose()
    bootstrap.downgrade(settings, "0001")
    with engine.begin() as connection:
        assert connection.execute(text("SELECT state FROM run")).scalars().all() == ["failed"]


def test_rows_survive_a_rebuild_of_their_parent(
    settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch rebuild on SQLite drops and renames the parent: with foreign keys on, its children would be gone."""
    bootstrap.migrate(settings)
    _fill(engine)
    engine.dispose()
    _add_revision(
        tmp_path,
        monkeypatch,
        "    rebuild = 'always' if op.get_bind().dialect.name == 'sqlite' else 'never'\n"
        "    with op.batch_alter_table('run', recreate=rebuild) as batch:\n"
        "        batch.add_column(sa.Column('note', sa.String(10), nullable=True))",
    )
    bootstrap.migrate(settings)
    assert _counts(engine) == [1, 1, 1]
    assert "note" in {column["name"] for column in inspect(engine).get_columns("run")}
    if engine.dialect.name == "sqlite":
        assert (settings.home / f"picochat.before-{HEAD}.db").exists()


def test_migration_that_leaves_orphans_is_undone(
    settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.migrate(settings)
    _fill(engine)
    engine.dispose()
    _add_revision(tmp_path, monkeypatch, '    op.execute("DELETE FROM run")\n    op.execute("SELECT 1")')
    if engine.dialect.name == "sqlite":
        with pytest.raises(RuntimeError, match="without their parent"):
            bootstrap.migrate(settings)
        assert _counts(engine) == [1, 1, 1]
        assert bootstrap.differences(settings) == []
    else:  # Postgres enforces keys itself: the cascade takes the children along
        bootstrap.migrate(settings)
        assert _counts(engine) == [0, 0, 0]


def test_failing_migration_leaves_the_schema_as_it_was(
    settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.migrate(settings)
    body = "    op.add_column('run', sa.Column('note', sa.String(10)))\n    raise RuntimeError('broken revision')"
    with monkeypatch.context() as patched:
        _add_revision(tmp_path, patched, body)
        with pytest.raises(RuntimeError, match="broken revision"):
            bootstrap.migrate(settings)
    assert bootstrap.check_current(settings) == HEAD
    assert "note" not in {column["name"] for column in inspect(engine).get_columns("run")}


def test_database_of_a_newer_version_is_refused(settings: Settings, engine: Engine) -> None:
    bootstrap.migrate(settings)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for refuses in (bootstrap.migrate, bootstrap.check_current):
        with pytest.raises(bootstrap.DatabaseRefused, match=r"9999.*newer picochat"):
            refuses(settings)


def test_database_that_is_not_ours_is_refused(settings: Settings, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE run (id INTEGER)"))
    with pytest.raises(bootstrap.DatabaseRefused, match="not made by picochat"):
        bootstrap.migrate(settings)


def test_old_database_is_named_with_what_to_do(settings: Settings, engine: Engine) -> None:
    with pytest.raises(bootstrap.DatabaseRefused, match="db upgrade"):
        bootstrap.check_current(settings)


def test_servers_that_start_at_once_migrate_once(settings: Settings, engine: Engine) -> None:
    errors: list[BaseException] = []

    def start() -> None:
        try:
            bootstrap.migrate(settings)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [HEAD]
    assert bootstrap.differences(settings) == []


def _add_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, upgrade: str) -> None:
    """Go on with a copy of the migrations that has one more revision."""
    folder = tmp_path / "migrations"
    shutil.copytree(Path(migrations_file).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9000_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = '9000'\ndown_revision = '{HEAD}'\n\n\ndef upgrade():\n{upgrade}\n\n\ndef downgrade():\n    pass\n"
    )
    monkeypatch.setattr(bootstrap.picochat_migrations, "__file__", str(folder / "__init__.py"))
