"""The first start: project, keys and secret in files that only their owner reads."""

import json
import stat
from pathlib import Path

import pytest
from fastapi import FastAPI
from picochat_server import bootstrap
from picochat_server.auth.service import principal_of
from picochat_server.commands import make_first_keys
from picochat_server.db import transaction
from picochat_server.models import ApiKey, Audit
from picochat_server.settings import Settings
from sqlalchemy import func, select, update

URL = "http://127.0.0.1:7460"


def _scopes(app: FastAPI, secret: str) -> frozenset[str]:
    with transaction(app.state.sessions) as session:
        principal = principal_of(session, secret)
        assert principal is not None
        return principal.scopes


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_first_start_makes_an_admin_key_and_a_worker_key(app: FastAPI, settings: Settings) -> None:
    first = make_first_keys(settings, URL)
    client = json.loads((settings.home / "client.json").read_text())
    assert client["url"] == URL
    assert _scopes(app, client["api_key"]) == {"admin"}
    assert _scopes(app, (settings.home / "worker.key").read_text().strip()) == {"worker"}
    assert first.made_keys
    assert [_mode(path) for path in (first.client_file, first.worker_key_file)] == [0o600, 0o600]


def test_keys_of_the_first_start_are_in_the_audit_trail(app: FastAPI, settings: Settings) -> None:
    make_first_keys(settings, URL)
    with transaction(app.state.sessions) as session:
        rows = session.scalars(select(Audit).order_by(Audit.id)).all()
    assert [(row.actor, row.action) for row in rows] == [("console", "key.create")] * 2


def test_second_start_keeps_the_keys_and_notes_the_new_address(app: FastAPI, settings: Settings) -> None:
    make_first_keys(settings, URL)
    before = json.loads((settings.home / "client.json").read_text())
    assert not make_first_keys(settings, "http://127.0.0.1:8000").made_keys
    after = json.loads((settings.home / "client.json").read_text())
    assert after == {"url": "http://127.0.0.1:8000", "api_key": before["api_key"]}
    with transaction(app.state.sessions) as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 2


@pytest.mark.parametrize("damage", ["removed", "garbage", "revoked"])
def test_key_file_that_is_of_no_use_is_replaced(app: FastAPI, settings: Settings, damage: str) -> None:
    make_first_keys(settings, URL)
    file = settings.home / "client.json"
    if damage == "removed":
        file.unlink()
    elif damage == "garbage":
        file.write_text("[")
    else:
        with transaction(app.state.sessions) as session:
            session.execute(update(ApiKey).values(revoked_at=func.current_timestamp()))
    assert make_first_keys(settings, URL).made_keys
    assert _scopes(app, json.loads(file.read_text())["api_key"]) == {"admin"}


def test_secret_is_made_once_and_private(settings: Settings) -> None:
    plain = settings.model_copy(update={"secret_key": ""})
    first, second = bootstrap.with_secret(plain), bootstrap.with_secret(plain)
    assert len(first.secret_key) >= 43
    assert first.secret_key == second.secret_key
    assert _mode(settings.home / "secret.key") == 0o600


def test_given_secret_wins_over_the_file(settings: Settings) -> None:
    assert bootstrap.with_secret(settings).secret_key == settings.secret_key
    assert not (settings.home / "secret.key").exists()


def test_private_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "client.json"
    path.write_text("old")
    path.chmod(0o644)
    bootstrap.write_private(path, "new")
    assert (path.read_text(), _mode(path)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [path]
