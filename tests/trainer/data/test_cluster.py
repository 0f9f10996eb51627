"""The corpus build on a Ray cluster: the same bytes as on this machine, and machines that cannot take part are refused."""

import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from picochat_contract.data_configs import CleaningConfig, FileSource
from picochat_contract.errors import Code, ContractError
from picochat_contract.version import __version__
from picochat_trainer.data import cluster
from picochat_trainer.data.building import batches
from picochat_trainer.data.cluster import Engine, open_workers
from picochat_trainer.data.corpus import build_corpus
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.sources import open_sources
from picochat_trainer.data.workers import Workers
from support.ports import free_port

PROGRAMS = Path(sys.executable).parent


@pytest.mark.slow
def test_ray_cluster_writes_the_bytes_of_the_local_build(tmp_path: Path) -> None:
    if not (PROGRAMS / "ray").is_file():
        pytest.skip(
            "Ray is not installed (pip install 'picochat[cluster]'): the distributed build was NOT tested"
        )
    source = _documents(tmp_path / "documents.jsonl", megabytes=12)
    local, distributed = tmp_path / "local", tmp_path / "distributed"
    _picochat(["data", "build", "--input", source, "--out", local, "--workers", 2])
    with _cluster(num_workers=2) as started:
        _picochat(["data", "build", "--input", source, "--out", distributed, "--engine", "ray"], started)
    assert _files(local) == _files(distributed)
    manifest = json.loads((distributed / "corpus_manifest.json").read_text())
    assert manifest["text_sha256"] == json.loads((local / "corpus_manifest.json").read_text())["text_sha256"]
    assert manifest["dropped_counts"].keys() >= {"exact_duplicate", "near_duplicate"}
    CorpusStore.at(distributed).check_digests()


def test_any_executor_gives_the_same_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that finish in another order than they came, as on a cluster."""
    monkeypatch.setattr(batches, "BATCH_CHARACTERS", 20_000)
    source = _documents(tmp_path / "documents.jsonl", megabytes=1)
    _build(source, tmp_path / "local", Workers(1))
    _build(source, tmp_path / "other", Workers(3, pool_after_bytes=0, start_pool=_LastFirst))
    assert _files(tmp_path / "local") == _files(tmp_path / "other")


def test_local_engine_gives_processes_of_this_machine(tmp_path: Path) -> None:
    with open_workers(Engine.LOCAL, count=1, shared=tmp_path) as workers:
        doubled = workers.map(
            lambda number: 2 * number, [1, 2], task=lambda item: item, size_bytes=lambda _: 1
        )
        assert list(doubled) == [(1, 2), (2, 4)]


def test_address_without_ray_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ContractError, match="add --engine ray"),
        open_workers(Engine.LOCAL, count=1, shared=tmp_path, address="127.0.0.1:6379"),
    ):
        pass


def test_missing_ray_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ContractError, match=r"picochat\[cluster\]") as caught,
        open_workers(Engine.RAY, count=1, shared=tmp_path),
    ):
        pass
    assert caught.value.code is Code.MISSING_DEPENDENCY


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:port", "127.0.0.1:{closed}"])
def test_address_without_a_cluster_is_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", _FakeRay())
    with (
        pytest.raises(ContractError, match="no Ray cluster answers"),
        open_workers(Engine.RAY, count=1, shared=tmp_path, address=address.format(closed=free_port())),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "message"),
    [((False, __version__), "does not see"), ((True, "0.0.1"), r"has picochat 0\.0\.1")],
)
def test_machine_that_cannot_take_part_is_refused(
    answer: tuple[bool, str], message: str, tmp_path: Path
) -> None:
    pytest.importorskip(
        "ray", reason="Ray is not installed: the check of a cluster's machines was NOT tested"
    )
    with pytest.raises(ContractError, match=message):
        cluster._check_nodes(
            _FakeRay(answer), [{"NodeID": "0" * 56, "NodeManagerAddress": "10.0.0.2"}], tmp_path
        )
    assert not list(tmp_path.iterdir())


def test_cluster_without_processors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = _FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    with (
        pytest.raises(ContractError, match="no CPU to work with"),
        open_workers(Engine.RAY, count=1, shared=tmp_path),
    ):
        pass
    assert ray.is_shut_down


class _FakeRay:
    """A cluster of one head without processors, whose tasks give one answer."""

    def __init__(self, answer: Any = None) -> None:
        self._answer = answer
        self.is_shut_down = False

    def init(self, **_: Any) -> None:
        pass

    def shutdown(self) -> None:
        self.is_shut_down = True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"memory": 1.0}}]

    def remote(self, *_: Any) -> "_FakeRay":
        return self

    def options(self, **_: Any) -> "_FakeRay":
        return self

    def get(self, references: list[Any]) -> list[Any]:
        return [self._answer for _ in references]


class _LastFirst(Executor):
    """Runs a task when its result, or that of an earlier one, is asked for; later ones first."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.result = lambda timeout=None: self._run(future)  # type: ignore[method-assign]
        self._waiting.append((future, function, args))
        return future

    def _run(self, asked: Future[Any]) -> Any:
        while self._waiting:
            future, function, args = self._waiting.pop()
            future.set_result(function(*args))
        return Future.result(asked)


def _build(source: Path, folder: Path, workers: Workers) -> None:
    sources = [FileSource(type="file", path=str(source))]
    files = open_sources(sources, artifact_path=Path)
    with workers:
        build_corpus(files, sources, CleaningConfig(), 0, folder, workers)


def _documents(path: Path, *, megabytes: int) -> Path:
    """Rows of text; every tenth repeats an earlier one, every fifth nearly."""
    rng = random.Random(3)
    texts: list[str] = []
    written = 0
    with path.open("w") as file:
        while written < megabytes * 1_000_000:
            kind = rng.random()
            if texts and kind < 0.1:
                text = rng.choice(texts) + "\n"
            elif texts and kind < 0.3:
                text = rng.choice(texts).replace(" the", " a", 1) + " Again."
            else:
                text = (
                    " ".join(rng.choice(["the", "a", f"w{rng.randrange(40_000)}"]) for _ in range(300)) + "."
                )
                texts.append(text)
            written += file.write(json.dumps({"text": text}) + "\n")
    return path


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _picochat(arguments: list[object], started: "_Started | None" = None) -> None:
    given = ["--ray-address", started.address] if started else []
    done = subprocess.run(
        [str(PROGRAMS / "picochat"), *map(str, arguments), *given],
        capture_output=True,
        text=True,
        timeout=200,
        env=started.env if started else None,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class _Started:
    """A cluster that lets in who has its token."""

    address: str
    env: dict[str, str]


@contextmanager
def _cluster(*, num_workers: int) -> Iterator[_Started]:
    """A head that does no work and `num_workers` nodes of one CPU, each a group of processes of its own, on loopback."""
    # said outright: what Ray does by default depends on files in the home folder
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONUNBUFFERED": "1",
    }
    with ExitStack() as stack:
        # short: the path of a Unix socket below it may have 107 bytes
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        )
        head = f"--head --port 0 --num-cpus 0 --include-dashboard false --temp-dir {folder}"
        address = re.findall("--address='(.+?)'", _start(stack, head, env))[0]
        for _ in range(num_workers):
            _start(stack, f"--address {address} --num-cpus 1", env)
        yield _Started(address, env)


def _start(stack: ExitStack, options: str, env: dict[str, str]) -> str:
    """Start a node, wait until it says that it runs, and stop all its processes at the end; what it said."""
    common = "--block --node-ip-address 127.0.0.1 --object-store-memory 100000000 --disable-usage-stats"
    process = subprocess.Popen(
        [str(PROGRAMS / "ray"), "start", *options.split(), *common.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=env,
    )
    stack.callback(_stop, process)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if "block forever" in line:
            return said
    raise AssertionError(said)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what did not follow its parent
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
