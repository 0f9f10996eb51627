import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

import pytest
import typer
from picochat_client import NotFound, ServerUnreachable, program
from picochat_contract.errors import Code, SpecError

SUMMARY = program.Summary(text="Do it.", extra="server", probe="json")


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """Two commands: `good`, whose module each test fills in, and `broken`, whose module cannot be imported."""
    found = {
        "good": EntryPoint("good", "a_good_module:app", program.GROUP),
        "broken": EntryPoint("broken", "a_broken_module:app", program.GROUP),
    }
    monkeypatch.setattr(program, "_entry_points", lambda: found)
    monkeypatch.setattr(program, "COMMANDS", {"good": SUMMARY, "broken": SUMMARY})
    return found


def install(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    module, app = ModuleType("a_good_module"), typer.Typer()

    @app.command()
    def good(count: int = 1) -> None:
        if error is not None:
            raise error
        print("did it", count)

    module.app = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "a_good_module", module)


def test_runs_the_command_that_is_called(
    commands: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    assert program.main(["good", "--count", "3"]) == 0
    assert capsys.readouterr().out == "did it 3\n"


def test_help_lists_every_command_and_imports_none(
    commands: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["--help"]) == 0
    assert program.main([]) == 0
    out = capsys.readouterr().out
    assert "good" in out
    assert "broken" in out
    assert "a_broken_module" not in sys.modules


def test_an_unknown_command_suggests_the_nearest(
    commands: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["goood"]) == 64
    assert "Did you mean 'good'?" in capsys.readouterr().err


def test_a_command_whose_package_is_missing_says_what_to_install(
    commands: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = program.Summary(text="Do it.", extra="server", probe="no_such_package_at_all")
    monkeypatch.setattr(program, "COMMANDS", {"good": missing})
    assert program.main(["--help"]) == 0
    assert 'pip install "picochat[server]"' in " ".join(capsys.readouterr().out.split())
    assert program.main(["good"]) == 64
    assert "error [not_installed]: picochat good lacks" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["server", "worker"])
def test_the_programs_of_other_packages_say_what_they_lack(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the thin install `picochat-server` is there, but not what it imports."""
    monkeypatch.setattr(program, "_is_installed", lambda summary: False)
    monkeypatch.setattr("sys.argv", [f"picochat-{name}"])
    assert getattr(program, name)() == 64
    assert f'pip install "picochat[{name}]"' in capsys.readouterr().err


def test_a_package_that_only_the_import_misses_is_named_too(
    commands: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["broken"]) == 64
    assert "'a_broken_module'" in capsys.readouterr().err


def test_a_fault_of_our_own_is_not_taken_for_a_missing_package(
    commands: dict[str, EntryPoint],
) -> None:
    commands["broken"] = EntryPoint("broken", "picochat_no_such_part:app", program.GROUP)
    with pytest.raises(ModuleNotFoundError):
        program.main(["broken"])


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SpecError(Code.INVALID_SHAPE, "n_embd must fit"), 64, "error [invalid_shape]: n_embd must fit"),
        (NotFound(404, "not_found", "no run"), 64, "error [not_found]: no run"),
        (ServerUnreachable("no answer"), 75, "error [server_unreachable]: no answer"),
        (typer.BadParameter("no"), 64, "error [usage]: Invalid value: no; see `picochat good --help`"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error [system]: /x: Permission denied"),
        (OSError(28, "No space left on device"), 1, "error [system]: No space left on device"),
        (typer.Exit(7), 7, ""),
        (typer.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_a_command_raises_becomes_a_line_and_an_exit_code(
    commands: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    line: str,
) -> None:
    install(monkeypatch, error)
    assert program.main(["good"]) == code
    assert capsys.readouterr().err.strip() == line


def test_every_entry_point_of_the_distribution_has_its_help_line() -> None:
    named = {entry.name for entry in entry_points(group=program.GROUP)}
    assert named == set(program.COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert program.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("picochat ")
