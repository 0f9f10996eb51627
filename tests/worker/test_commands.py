import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from picochat_worker.commands import app
from picochat_worker.host import describe_device
from picochat_worker.settings import WorkerSettings
from typer.testing import CliRunner

from .conftest import wait_for
from .fake_server import FakeServer

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PICOCHAT_WORKER_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_worker_without_a_key_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["--poll"])
    assert result.exit_code == 64
    assert "api_key" in result.output


def test_address_that_is_no_url_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["--poll", "--key", "k", "--url", "localhost:1"])
    assert result.exit_code == 64
    assert "url" in result.output


def test_poll_and_broker_exclude_each_other() -> None:
    result = CliRunner().invoke(app, ["--poll", "--broker", "redis://x", "--key", "k"])
    assert result.exit_code == 2


def test_once_runs_what_there_is_and_leaves(
    server: FakeServer, start_worker: StartWorker, add_stage: Callable[..., str]
) -> None:
    add_stage("succeed")
    add_stage("succeed")
    assert start_worker("--poll", "--once").wait(30) == 0
    assert len(server.attempts) == 1
    assert server.attempt().finish


def test_options_win_over_the_environment(server: FakeServer, start_worker: StartWorker) -> None:
    worker = start_worker("--poll", "--once", "--url", server.url, url="http://127.0.0.1:1")
    assert worker.wait(30) == 0
    assert server.seen


def test_refused_key_ends_the_worker(start_worker: StartWorker, tmp_path: Path) -> None:
    assert start_worker("--poll", api_key="wrong").wait(30) == 1
    assert "scope `worker`" in (tmp_path / "worker-0.out").read_text()


def test_worker_waits_for_a_server_that_is_not_up_yet(
    server: FakeServer, start_worker: StartWorker, add_stage: Callable[..., str], tmp_path: Path
) -> None:
    server.stop()
    add_stage("succeed")
    start_worker()
    wait_for(lambda: "does not answer" in (tmp_path / "worker-0.out").read_text(), "the first refusal")
    server.start()
    wait_for(lambda: server.attempts and server.attempt().finish, "the stage", seconds=30)


def test_each_name_has_its_own_default_folder(tmp_path: Path) -> None:
    homes = {WorkerSettings(api_key="k", name=name).home for name in ("a", "host.b", "../c")}
    base = tmp_path / ".picochat" / "worker"
    assert homes == {base / "a", base / "host.b", base / "__c"}


@pytest.mark.parametrize(("lines", "text"), [("NVIDIA H200\nNVIDIA H200\n", "2 x NVIDIA H200"), ("", "cpu")])
def test_device_is_described_by_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, text: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\nprint({lines!r}, end='')\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert describe_device("auto") == text
    assert describe_device("cpu") == "cpu"


def test_worker_imports_neither_torch_nor_a_database() -> None:
    program = (
        "import sys, picochat_worker.commands; print(sorted({'torch', 'sqlalchemy', 'picochat_trainer',"
        " 'picochat_server'} & {name.split('.')[0] for name in sys.modules}))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
