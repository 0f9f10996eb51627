"""Runs that are paid for by the hour: nothing is sent before somebody has said yes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from picochat_client import paid_launch
from picochat_contract.exit_codes import ClientExit

from .fake_server import FakeServer

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "paid.yaml"
    path.write_text("name: paid\nscale: h100-pilot\n")
    return str(path)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    """Somebody at a terminal who gives this answer; what was asked is collected."""

    def answer(value: bool) -> list[str]:
        asked: list[str] = []

        def confirm(question: str, **options: object) -> bool:
            asked.append(question)
            return value

        monkeypatch.setattr(paid_launch, "is_terminal", lambda: True)
        monkeypatch.setattr(paid_launch.typer, "confirm", confirm)
        return asked

    return answer


def submitted(server: FakeServer) -> list[dict[str, object]]:
    return [json.loads(request.content) for request in server.calls("POST", "/runs")]


def test_no_on_the_terminal_submits_nothing(
    cli: Cli, server: FakeServer, spec: str, answers: Callable[[bool], list[str]]
) -> None:
    asked = answers(False)
    code, out, err = cli("submit", spec)
    assert (code, out) == (ClientExit.CANCELLED, "")
    assert asked and server.requests == []
    assert "327,680,000" in err and "sanity preh100 --capacity-scale h100-pilot" in err


def test_yes_on_the_terminal_submits_with_the_confirmation(
    cli: Cli, server: FakeServer, spec: str, answers: Callable[[bool], list[str]]
) -> None:
    asked = answers(True)
    assert cli("submit", spec)[0] == ClientExit.OK
    assert len(asked) == 1
    assert [body["confirm_paid_launch"] for body in submitted(server)] == [True]


def test_without_a_terminal_it_is_refused_before_anything_is_sent(
    cli: Cli, server: FakeServer, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paid_launch, "is_terminal", lambda: False)
    code, out, err = cli("submit", spec)
    assert (code, out) == (ClientExit.USAGE, "")
    assert err.startswith("error [confirmation_required]: ")
    assert server.requests == []


@pytest.mark.parametrize("given", [["--confirm-paid-launch"], ["--set", "confirm_paid_launch=true"]])
def test_an_option_or_the_spec_confirms_without_a_question(
    cli: Cli, server: FakeServer, spec: str, answers: Callable[[bool], list[str]], given: list[str]
) -> None:
    asked = answers(False)
    assert cli("submit", spec, *given)[0] == ClientExit.OK
    assert asked == []
    assert [body["confirm_paid_launch"] for body in submitted(server)] == [True]


def test_a_run_that_costs_nothing_is_not_asked_about(
    cli: Cli, server: FakeServer, spec: str, answers: Callable[[bool], list[str]]
) -> None:
    asked = answers(False)
    assert cli("submit", spec, "--set", "resources.device=cpu")[0] == ClientExit.OK
    assert asked == []
    assert "confirm_paid_launch" not in submitted(server)[0]


def test_a_refusal_of_the_server_is_shown(cli: Cli, server: FakeServer, spec: str) -> None:
    """A server with stricter rules than this client's."""
    from .scripted import problem

    server.fail(problem(409, "confirmation_required", "say yes first"))
    code, _, err = cli("submit", spec, "--set", "resources.device=cpu")
    assert (code, err) == (ClientExit.USAGE, "error [confirmation_required]: say yes first\n")
