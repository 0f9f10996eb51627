"""`python -m picochat_trainer serve|chat|generate` and the commands of `picochat` that start them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from picochat_trainer.commands import chat as program
from picochat_trainer.inference import Engine, SamplingParams
from picochat_trainer.inference.commands import main
from typer.testing import CliRunner

Waiter = Callable[[Callable[[], bool]], None]


@pytest.fixture
def files(checkpoint_dir: Path, tokenizer_json: Path) -> list[str]:
    return ["--checkpoint", str(checkpoint_dir), "--tokenizer", str(tokenizer_json)]


def test_generate_prints_prompt_and_continuation(
    files: list[str], engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["generate", *files, "--prompt", "The ", "--max-new", "8", "--temperature", "0"])
    ids = [engine.tokenizer.bos_id, *engine.tokenizer.encode("The ")]
    params = SamplingParams(max_new_tokens=8, temperature=0, stop_ids=engine.control_ids)
    assert code == 0
    assert capsys.readouterr().out == f"The {engine.generate([ids], params)[0].text}\n"


def test_chat_answers_one_prompt(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--top-k", "5", "--top-p", "0.9", "--repetition-penalty", "1.2", "--seed", "3"]
    answers = []
    for _ in range(2):
        assert main(["chat", *files, "--prompt", "Hi", "--max-new", "8", *settings]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != "\n"


def test_a_missing_checkpoint_exits_2_and_says_what_to_give(
    tokenizer_json: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--checkpoint", str(tmp_path / "none"), "--tokenizer", str(tokenizer_json)]
    assert main(["chat", *files]) == 2
    error = capsys.readouterr().err
    assert "error [file_unreadable]: no checkpoint at" in error
    assert "give a folder that holds model.safetensors" in error


def test_a_missing_tokenizer_exits_2_and_says_what_to_run(
    checkpoint_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--checkpoint", str(checkpoint_dir), "--tokenizer", str(tmp_path / "none.json")]
    assert main(["serve", *files]) == 2
    assert "picochat tok train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate"], "No such option"),
        (["chat", "--checkpoint", "x"], "Missing option"),
        (["dance"], "No such command"),
    ],
)
def test_usage_errors_exit_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    extra = ["--promt", "x"] if arguments == ["generate"] else []
    assert main([*arguments, *extra]) == 2
    assert message in capsys.readouterr().err


def test_impossible_settings_exit_2_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--checkpoint", "none", "--tokenizer", "none"]
    assert main(["generate", *files, "--prompt", "x", "--top-p", "2"]) == 2
    assert main(["serve", *files, "--temperature", "-1"]) == 2
    errors = capsys.readouterr().err
    assert "top_p: expected over 0 and at most 1, got 2.0" in errors
    assert "temperature: expected 0 (greedy) or more, got -1.0" in errors


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::"])
def test_serve_refuses_other_hosts_without_a_key(
    host: str, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *files, "--host", host]) == 2
    assert "name it with --api-key-env" in capsys.readouterr().err


@pytest.mark.parametrize("value", [None, ""])
def test_serve_refuses_an_empty_key(
    value: str | None,
    files: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if value is None:
        monkeypatch.delenv("PICOCHAT_TEST_KEY", raising=False)
    else:
        monkeypatch.setenv("PICOCHAT_TEST_KEY", value)
    assert main(["serve", *files, "--api-key-env", "PICOCHAT_TEST_KEY"]) == 2
    assert "empty or not set" in capsys.readouterr().err


@pytest.mark.slow
def test_serve_runs_answers_and_ends_on_sigterm(
    files: list[str], engine: Engine, checkpoint_dir: Path, tokenizer_json: Path, wait_until: Waiter
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "picochat_trainer", "serve", *files, "--port", str(port)]
    environment = {**os.environ, "PICOCHAT_TEST_KEY": "k", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--api-key-env", "PICOCHAT_TEST_KEY"], env=environment)
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None)
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": "Bearer k"})
        digest = Engine.load(checkpoint_dir, tokenizer_json).checkpoint_sha256
        assert answer.json()["data"][0]["id"] == "picochat"
        assert answer.headers["picochat-checkpoint"] == digest
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("name", ["serve", "chat", "generate"])
def test_picochat_passes_all_arguments_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda path, argv: started.append((path, argv)))
    arguments = ["--checkpoint", "x", "--help", "--prompt", "two words", "-x"]
    result = CliRunner().invoke(getattr(program, f"{name}_app"), arguments)
    assert result.exit_code == 0
    expected = [sys.executable, "-m", "picochat_trainer", name, *arguments]
    assert started == [(sys.executable, expected)]


def test_the_commands_of_picochat_import_no_torch() -> None:
    code = "import sys, picochat_trainer.commands.chat; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
