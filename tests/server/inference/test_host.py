"""ModelHost against a real process that speaks the model server's protocol."""

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from picochat_server.inference.files import ModelFiles, ModelFilesError, lay_out
from picochat_server.inference.host import ModelHost
from picochat_server.inference.process import ModelHostError

FAKE = Path(__file__).with_name("fake_model.py")
DEADLINE_SECONDS = 20


class Store:
    """Files by digest, as the artifact store keeps them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()

    def put(self, content: str) -> str:
        digest = hashlib.sha256(content.encode()).hexdigest()
        (self.root / digest).write_text(content)
        return digest

    def path(self, digest: str) -> Path:
        return self.root / digest

    def model(self, name: str, mode: str = "") -> ModelFiles:
        return ModelFiles(
            name=name,
            digests={"model.safetensors": self.put(mode or name), "tokenizer.json": self.put("{}")},
        )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def make_host(tmp_path: Path, store: Store, **changes: object) -> ModelHost:
    settings = {"idle_seconds": 60, "start_seconds": 15} | changes
    return ModelHost(
        [sys.executable, str(FAKE)],
        folder=tmp_path / "models",
        stored=store.path,
        **settings,  # type: ignore[arg-type]
    )


def with_host(host: ModelHost, work: Callable[[ModelHost], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await work(host)
        finally:
            await host.close()

    asyncio.run(main())


def child_pid(log: Path) -> int:
    found = re.search(r"pid (\d+)", log.read_text())
    assert found
    return int(found[1])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def test_many_requests_share_one_process(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        leases = await asyncio.gather(*(host.acquire(store.model("run_a")) for _ in range(8)))
        assert len({lease.process.process.pid for lease in leases}) == 1
        assert host.live == ("run_a",)

    with_host(make_host(tmp_path, store), work)


def test_close_ends_the_model_process(tmp_path: Path, store: Store) -> None:
    pids = []

    async def work(host: ModelHost) -> None:
        lease = await host.acquire(store.model("run_a"))
        pids.append(child_pid(lease.process.log))
        assert is_running(pids[0])

    with_host(make_host(tmp_path, store), work)
    assert not is_running(pids[0])


def test_an_idle_model_is_stopped_and_a_busy_one_is_not(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        busy = await host.acquire(store.model("run_busy"))
        idle = await host.acquire(store.model("run_idle"))
        pid = child_pid(idle.process.log)
        idle.release()
        for _ in range(DEADLINE_SECONDS * 20):
            if host.live == ("run_busy",) and not is_running(pid):
                break
            await asyncio.sleep(0.05)
        assert host.live == ("run_busy",)
        assert not is_running(pid)
        assert busy.process.is_alive

    with_host(make_host(tmp_path, store, idle_seconds=0.4), work)


def test_the_least_recently_used_idle_model_makes_room(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        for name in ("run_a", "run_b"):
            (await host.acquire(store.model(name))).release()
        (await host.acquire(store.model("run_a"))).release()
        await host.acquire(store.model("run_c"))
        assert set(host.live) == {"run_a", "run_c"}

    with_host(make_host(tmp_path, store), work)


def test_busy_models_are_never_evicted(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        await host.acquire(store.model("run_a"))
        await host.acquire(store.model("run_b"))
        with pytest.raises(ModelHostError, match="2 models are answering"):
            await host.acquire(store.model("run_c"))

    with_host(make_host(tmp_path, store), work)


def test_a_process_that_ends_at_once_is_reported_with_its_log(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        with pytest.raises(ModelHostError, match="unreadable, says the fake"):
            await host.acquire(store.model("run_a", "fail"))
        assert host.live == ()

    with_host(make_host(tmp_path, store), work)


def test_the_key_of_a_model_process_is_kept_out_of_messages(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        with pytest.raises(ModelHostError, match=r"the key is \*\*\*, says the fake"):
            await host.acquire(store.model("run_a", "leak"))

    with_host(make_host(tmp_path, store), work)


def test_a_closed_host_starts_nothing(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        await host.close()
        with pytest.raises(ModelHostError, match="shutting down"):
            await host.acquire(store.model("run_a"))

    with_host(make_host(tmp_path, store), work)


def test_the_keeper_refuses_a_process_group_that_it_does_not_lead() -> None:
    command = [sys.executable, "-m", "picochat_server.inference.keeper", "--", "true"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "leader of its own process group" in done.stderr


def test_a_process_that_never_answers_is_given_up_and_ended(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        with pytest.raises(ModelHostError, match=r"not ready after 2 s"):
            await host.acquire(store.model("run_a", "slow"))

    with_host(make_host(tmp_path, store, start_seconds=2), work)
    log = next((tmp_path / "models").glob("*.log"))
    assert not is_running(child_pid(log))


def test_a_crashed_model_is_started_again(tmp_path: Path, store: Store) -> None:
    async def work(host: ModelHost) -> None:
        first = await host.acquire(store.model("run_a"))
        os.kill(child_pid(first.process.log), signal.SIGKILL)
        await asyncio.wait_for(first.process.process.wait(), DEADLINE_SECONDS)
        second = await host.acquire(store.model("run_a"))
        assert second.process.process.pid != first.process.process.pid
        assert second.process.is_alive

    with_host(make_host(tmp_path, store), work)


def test_the_model_process_gets_no_setting_of_the_server(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PICOCHAT_SECRET_KEY", "do not hand on")

    async def work(host: ModelHost) -> None:
        lease = await host.acquire(store.model("run_a"))
        assert "inherited: ['PICOCHAT_MODEL_KEY']" in lease.process.log.read_text()

    with_host(make_host(tmp_path, store), work)


SERVER = """
import asyncio, sys
from pathlib import Path
from picochat_server.inference.files import ModelFiles
from picochat_server.inference.host import ModelHost

async def main():
    fake, folder, store, weights, tokenizer = sys.argv[1:]
    host = ModelHost([sys.executable, fake], folder=Path(folder), stored=Path(store).joinpath, idle_seconds=60)
    files = ModelFiles(name="run_a", digests={"model.safetensors": weights, "tokenizer.json": tokenizer})
    await host.acquire(files)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_kill_9_of_the_server_ends_the_model_process(tmp_path: Path, store: Store) -> None:
    digests = store.model("run_a").digests
    server = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SERVER,
            str(FAKE),
            str(tmp_path / "models"),
            str(store.root),
            *digests.values(),
        ],
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        pid = child_pid(next((tmp_path / "models").glob("*.log")))
        assert is_running(pid)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    wait_until(lambda: not is_running(pid))


def test_files_are_hard_links_into_the_store(tmp_path: Path, store: Store) -> None:
    files = store.model("run_a")
    lay_out(files, tmp_path / "model", store.path)
    assert (tmp_path / "model/model.safetensors").samefile(store.path(files.weights))


def test_a_damaged_file_of_the_store_is_refused(tmp_path: Path, store: Store) -> None:
    files = store.model("run_a")
    store.path(files.weights).write_text("other bytes")
    with pytest.raises(ModelFilesError, match="do not have sha256"):
        lay_out(files, tmp_path / "model", store.path)
    assert not (tmp_path / "model/model.safetensors").exists()


def test_a_missing_file_of_the_store_is_named(tmp_path: Path, store: Store) -> None:
    files = store.model("run_a")
    store.path(files.weights).unlink()
    with pytest.raises(ModelFilesError, match=r"model\.safetensors is not in the artifact store"):
        lay_out(files, tmp_path / "model", store.path)


def test_a_tampered_copy_in_the_model_folder_is_replaced(tmp_path: Path, store: Store) -> None:
    files = store.model("run_a")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.safetensors").write_text("evil")
    lay_out(files, tmp_path / "model", store.path)
    assert (tmp_path / "model/model.safetensors").read_text() == "run_a"
