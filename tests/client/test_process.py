"""The program as a CI job runs it: a process of its own, a real socket, signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from picochat_contract.exit_codes import ClientExit

from .fake_server import FakeServer, serve
from .scripted import KEY, Script

CLI = [sys.executable, "-c", "import sys; from picochat_client.cli import main; sys.exit(main())"]
DEADLINE_SECONDS = 30.0


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "demo.yaml"
    path.write_text("name: demo\nscale: smoke\n")
    return str(path)


def start(url: str, *arguments: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PICOCHAT_URL": url, "PICOCHAT_API_KEY": KEY}
    return subprocess.Popen(
        [*CLI, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_restart_of_the_server_during_the_wait_is_survived(server: FakeServer, spec: str) -> None:
    server.reveal_by_list, server.script = 0, Script(num_metrics=10)
    gate, stopped = threading.Event(), threading.Event()
    count = 0

    def delay() -> None:
        nonlocal count
        count += 1
        if count == 10:
            gate.wait(DEADLINE_SECONDS)
        if stopped.is_set() and count < 20:
            raise OSError("the server stops")

    server.event_delay = delay
    with ExitStack() as stack:
        with serve(server) as url:
            waiting = start(url, "submit", spec, "--wait", "--json", "--timeout", "30")
            until(lambda: count >= 10)
            stopped.set()
            gate.set()
            port = int(url.rsplit(":", 1)[1])
        time.sleep(0.5)  # the outage itself: the client meets a closed port
        count = 20
        stack.enter_context(serve(server, port))
        out, err = waiting.communicate(timeout=DEADLINE_SECONDS)
    assert waiting.returncode == ClientExit.OK, err
    assert json.loads(out)["run"]["last_seq"] == len(server.runs["run_1"].events)
    assert "trying again" in err


def test_ctrl_c_leaves_the_run_going_and_says_how_to_go_on(server: FakeServer, spec: str) -> None:
    release = threading.Event()

    def hold() -> None:
        release.wait(DEADLINE_SECONDS)

    server.event_delay = hold
    with serve(server) as url:
        waiting = start(url, "submit", spec, "--wait")
        until(lambda: bool(server.calls("GET", "/runs/run_1/events/stream")))
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=DEADLINE_SECONDS)
        release.set()
    assert waiting.returncode == 130
    assert "picochat-client wait run_1" in err
    assert "picochat-client cancel run_1" in err
    assert "Traceback" not in err
    assert not server.runs["run_1"].cancelled


def test_no_server_at_all_exits_75_after_the_timeout(spec: str) -> None:
    with serve(FakeServer()) as url:
        pass
    began = time.monotonic()
    ended = start(url, "submit", spec, "--wait", "--timeout", "1")
    _, err = ended.communicate(timeout=DEADLINE_SECONDS)
    assert ended.returncode == ClientExit.UNREACHABLE
    assert "error [server_unreachable]: no answer from" in err
    assert time.monotonic() - began >= 1


def test_a_reader_that_stops_reading_gives_no_traceback(server: FakeServer) -> None:
    run = server.add_run(script=Script(num_metrics=2000))
    run.visible = len(run.events)
    with serve(server) as url:
        printing = start(url, "events", run.id)
        assert printing.stdout is not None
        assert printing.stderr is not None
        printing.stdout.readline()
        printing.stdout.close()
        err = printing.stderr.read()
        printing.stderr.close()
        assert printing.wait(DEADLINE_SECONDS) != 0
    assert "Traceback" not in err


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {
    "torch",
    "fastapi",
    "starlette",
    "sqlalchemy",
    "celery",
    "uvicorn",
    "numpy",
    "tokenizers",
    "transformers",
}


def test_the_sdk_imports_neither_torch_nor_server_nor_terminal() -> None:
    """httpx brings rich along where it is installed; the SDK adds nothing to that."""
    added = modules_after("import picochat_client") - modules_after("import httpx")
    assert "picochat_client.runs" in added
    assert not added & (HEAVY | {"typer", "rich", "picochat_client.cli"})


def test_the_command_lines_import_neither_torch_nor_server() -> None:
    assert not modules_after("import picochat_client.cli, picochat_client.program") & HEAVY


def test_help_of_picochat_imports_no_command() -> None:
    loaded = modules_after("from picochat_client.program import main; main(['--help'])")
    assert not loaded & (HEAVY | {"picochat_server", "picochat_trainer", "picochat_worker"})


def test_importing_the_sdk_is_quick() -> None:
    """Bound is loose (a busy two-core host); measured 0.2 s of processor time."""
    code = "import time; t = time.process_time(); import picochat_client; print(time.process_time() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(runs) < 1.0
