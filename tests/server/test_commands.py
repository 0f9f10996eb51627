"""`picochat-server`: what it prints, and when it refuses to start."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from picochat_server import bootstrap
from picochat_server.auth.service import principal_of
from picochat_server.commands import app as program
from picochat_server.db import make_engine, make_sessions, transaction
from picochat_server.home import HomeTakenError, announced, hold
from picochat_server.settings import Settings
from typer.testing import CliRunner, Result

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PICOCHAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PICOCHAT_DATABASE_URL", raising=False)
    return tmp_path / "home"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(program, list(arguments))


def test_committed_openapi_is_in_step() -> None:
    done = _run("openapi")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == json.loads(OPENAPI.read_text()), "run: make openapi"


def test_db_check_says_that_all_is_in_step() -> None:
    done = _run("db", "check")
    assert (done.exit_code, done.stdout) == (0, "migrations and models are in step\n")


def test_db_check_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "differences", lambda settings: [("add_column", "run.note")])
    done = _run("db", "check")
    assert done.exit_code == 1
    assert "run.note" in done.stderr
    assert "db revision" in done.stderr


def test_db_upgrade_makes_the_database(home: Path) -> None:
    done = _run("db", "upgrade")
    assert done.exit_code == 0, done.output
    assert bootstrap.check_current(Settings(home=home)) in done.stdout


def test_keys_create_prints_the_secret_once_on_standard_output(home: Path) -> None:
    done = _run("keys", "create", "--name", "ci", "--scopes", "runs:read, runs:write")
    assert done.exit_code == 0, done.output
    engine = make_engine(Settings(home=home).url)
    with transaction(make_sessions(engine)) as session:
        principal = principal_of(session, done.stdout.strip())
    engine.dispose()
    assert principal is not None
    assert principal.scopes == {"runs:read", "runs:write"}


def test_keys_create_refuses_unknown_scopes(home: Path) -> None:
    done = _run("keys", "create", "--name", "ci", "--scopes", "root")
    assert done.exit_code == 64
    assert "runs:write" in done.stderr


def test_open_bind_without_a_key_is_refused(home: Path) -> None:
    done = _run("start", "--host", "0.0.0.0", "--port", "0")
    assert done.exit_code == 64
    assert "keys create" in done.stderr
    assert not (home / "client.json").exists()


def test_taken_port_is_refused_with_what_to_do(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = _run("--port", str(other.getsockname()[1]))  # no command: starts
    assert done.exit_code == 64
    assert "--port" in done.stderr


def test_wrong_setting_is_refused_by_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICOCHAT_LEASE_SECONDS", "-1")
    done = _run("start")
    assert done.exit_code == 64
    assert "lease_seconds" in done.stderr


def test_newer_database_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _run("db", "upgrade").exit_code == 0
    monkeypatch.setattr(bootstrap, "_refuse_foreign", _newer)
    done = _run("start", "--port", "0")
    assert done.exit_code == 64
    assert "newer picochat" in done.stderr


def _newer(connection: object) -> str:
    raise bootstrap.DatabaseRefused("it was migrated by a newer picochat")


def test_database_that_does_not_answer_exits_75(home: Path) -> None:
    done = _run("start", "--database-url", "postgresql://nobody@127.0.0.1:1/none")
    assert done.exit_code == 75
    assert "does not answer" in done.stderr


def test_home_belongs_to_one_control_plane(tmp_path: Path) -> None:
    with hold(tmp_path) as lock:
        lock.announce("http://127.0.0.1:7460")
        with pytest.raises(HomeTakenError, match=r"at http://127.0.0.1:7460 \(process \d+\)"), hold(tmp_path):
            raise AssertionError("two at once")
    with hold(tmp_path):
        assert announced(tmp_path) is not None, "who was here before can be read"


def test_home_is_free_again_after_kill_9(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\nfrom picochat_server.home import hold\n"
        f"with hold(pathlib.Path({str(tmp_path)!r})) as lock:\n"
        "    lock.announce('http://x')\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(HomeTakenError), hold(tmp_path):
            raise AssertionError("two at once")
        holder.kill()
        holder.wait()
    with hold(tmp_path):
        pass
