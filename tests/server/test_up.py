"""`picochat up` and `picochat demo` as processes: they start, say what is in the way, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from picochat_server.children import Child, program
from picochat_server.home import announced

pytestmark = pytest.mark.slow
PICOCHAT = program("picochat")
FAKE_FACTORY = Path(__file__).parents[1] / "support" / "fake_factory.py"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Start `picochat ...` on this test's home; it is ended with everything it started."""
    with starting(home, tmp_path) as run:
        yield run


@contextmanager
def starting(home: Path, logs: Path) -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def run(*arguments: str, **settings: str) -> Child:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PICOCHAT_")}
        environment |= {"PICOCHAT_HOME": str(home), **settings}
        children.append(
            Child(arguments[0], [PICOCHAT, *arguments], environment, logs / f"{len(children)}.log")
        )
        return children[-1]

    try:
        yield run
    finally:
        for child in children:
            child.stop(20)


@dataclass(frozen=True)
class Up:
    """`picochat up` without a worker, and how to start more on its home."""

    home: Path
    url: str
    start: Callable[..., Child]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    with starting(folder / "home", folder) as run:
        first = run("up", "--port", "0", "--no-worker")
        yield Up(folder / "home", _address(folder / "home", first), run)


def _until(happened: Callable[[], object], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def _address(home: Path, child: Child) -> str:
    def is_up() -> bool:
        assert child.exit_code is None, child.log_tail(50)
        told = announced(home)
        return told is not None and told.pid == child.pid and _ready(told.url)

    _until(is_up, "picochat up to be ready")
    told = announced(home)
    assert told is not None
    return told.url


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _workers(url: str, home: Path) -> list[str]:
    key = json.loads((home / "client.json").read_text())["api_key"]
    answer = httpx.get(f"{url}/api/v1/workers", headers={"Authorization": f"Bearer {key}"}, timeout=10)
    return [worker["name"] for worker in answer.raise_for_status().json()["data"]]


def _alive_with(mark: str) -> list[int]:
    """Pids whose environment names this test's home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def test_up_starts_server_and_worker_and_ends_both(start: Callable[..., Child], home: Path) -> None:
    up = start("up", "--port", "0")
    url = _address(home, up)
    _until(lambda: _workers(url, home) == ["embedded"], "the worker to ask for work")
    up.stop(60)
    assert up.exit_code == 0, up.log_tail(50)
    assert _alive_with(str(home)) == []
    assert f"picochat is up at {url}" in up.log.read_text()
    assert json.loads((home / "client.json").read_text())["api_key"] not in up.log.read_text()


@pytest.mark.parametrize("is_second", [False, True], ids=["its first worker", "a worker it started again"])
def test_killed_up_leaves_no_worker_behind(start: Callable[..., Child], home: Path, is_second: bool) -> None:
    """One that went on would hold the work folder, and the next `picochat up` would have no worker."""
    up = start("up", "--port", "0")
    _address(home, up)
    _until(lambda: len(_workers_of(home)) == 1, "the worker")
    if is_second:
        (first,) = _workers_of(home)
        os.kill(first, signal.SIGKILL)
        _until(lambda: _workers_of(home) not in ([], [first]), "the dead one to be replaced")
    os.kill(up.pid, signal.SIGKILL)
    _until(lambda: _alive_with(str(home)) == [], "everything to be gone", 10)
    again = start("up", "--port", "0")
    url = _address(home, again)
    _until(lambda: _workers(url, home) == ["embedded"], "the new worker to ask for work")


def _workers_of(home: Path) -> list[int]:
    return _alive_with(f"PICOCHAT_WORKER_WORK_DIR={home.resolve()}/worker")


def test_second_up_on_one_home_says_so(up: Up) -> None:
    second = up.start("up", "--port", "0", "--no-worker")
    assert second.wait(60) == 64
    assert up.url in second.log.read_text()
    assert _ready(up.url)


def test_taken_port_is_said_plainly(up: Up) -> None:
    port = up.url.rpartition(":")[2]
    other = subprocess.run(
        [PICOCHAT, "up", "--port", port],
        env={**os.environ, "PICOCHAT_HOME": str(up.home) + "-2"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert other.returncode == 64
    assert f"port {port}" in other.stderr
    assert "--port" in other.stderr
    assert "Traceback" not in other.stderr


def test_demo_without_its_spec_is_refused(start: Callable[..., Child], home: Path) -> None:
    demo = start("demo", "--spec", str(home / "nowhere.yaml"))
    assert demo.wait(60) == 64
    assert "nowhere.yaml" in demo.log.read_text()


def test_demo_tells_a_bad_spec_from_success_and_leaves_nothing(
    start: Callable[..., Child], home: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "bad.yaml"
    spec.write_text("base: {model: {n_embed: 64}}\n")
    demo = start("demo", "--spec", str(spec))
    assert demo.wait(120) == 64, demo.log_tail(50)
    assert "did you mean 'n_embd'" in demo.log.read_text()
    assert _alive_with(str(home)) == []


def test_demo_that_preflight_stops_is_no_success(start: Callable[..., Child], tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("scale: smoke\n")
    command = json.dumps([sys.executable, str(FAKE_FACTORY)])
    demo = start("demo", "--spec", str(spec), PICOCHAT_WORKER_STAGE_COMMAND=command)
    assert demo.wait(120) == 2, demo.log_tail(50)
    assert "Preflight stopped this run" in demo.log.read_text()
    assert "every stage ran" not in demo.log.read_text()


def test_program_of_ours_lies_beside_python() -> None:
    assert Path(program("picochat-worker")).parent == Path(sys.executable).parent
    with pytest.raises(FileNotFoundError, match="pip install"):
        program("picochat-nothing")
