from pathlib import Path

import pytest
from picochat_client.installed import typed


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is nobody's: an environment in `.venv`, not on PATH."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "picochat").write_text("#!/bin/sh\n")
    (programs / "picochat").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(programs / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return programs


@pytest.mark.usefixtures("environment")
def test_program_off_path_is_typed_by_its_path() -> None:
    assert typed("picochat") == ".venv/bin/picochat"


def test_program_on_path_is_typed_by_its_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert typed("picochat") == "picochat"


def test_environment_elsewhere_is_typed_whole(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert typed("picochat") == str(environment / "picochat")
