"""The whole product as processes: a server, workers, and the command-line client, in a folder of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from support.ports import free_port

BIN = Path(sys.executable).parent
DEADLINE_SECONDS = 240


class Stack:
    """One control plane and its workers. `lease` and `grace` are seconds."""

    def __init__(
        self,
        home: Path,
        *,
        database_url: str = "",
        broker_url: str = "",
        lease: float = 6,
        grace: float = 4,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.broker_url = broker_url
        self.queue = f"picochat-{self.port}"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PICOCHAT_")},
            "PICOCHAT_HOME": str(home),
            "PICOCHAT_DATABASE_URL": database_url,
            "PICOCHAT_BROKER_URL": broker_url,
            "PICOCHAT_QUEUE": self.queue,
            "PICOCHAT_LEASE_SECONDS": str(lease),
            "PICOCHAT_GRACE_SECONDS": str(grace),
            "PICOCHAT_LOOP_SECONDS": "0.5",
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    # --- processes ---

    def start_server(self) -> "subprocess.Popen[bytes]":
        command = [str(BIN / "picochat-server"), "start", "--host", "127.0.0.1", "--port", str(self.port)]
        process = self._start(command, "server")
        self.wait_until(lambda: self._ready(process), "the server to be ready", seconds=60)
        return process

    def start_worker(
        self, name: str = "w1", *, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        mode = ["--broker", self.broker_url] if self.broker_url else ["--poll"]
        return self._start(
            [str(BIN / "picochat-worker"), *mode, "--name", name],
            f"worker-{name}",
            {
                "PICOCHAT_WORKER_URL": self.url,
                "PICOCHAT_WORKER_API_KEY": (self.home / "worker.key").read_text().strip(),
                "PICOCHAT_WORKER_WORK_DIR": str(self.home / f"work-{name}"),
                "PICOCHAT_WORKER_POLL_SECONDS": "0.5",
                "PICOCHAT_WORKER_QUEUE": self.queue,
                **(environment or {}),
            },
        )

    def client(
        self, *arguments: str, timeout: float = DEADLINE_SECONDS
    ) -> "subprocess.CompletedProcess[str]":
        """Run `picochat-client` as a user would."""
        return subprocess.run(
            [str(BIN / "picochat-client"), *arguments],
            env={**self.environment, "PICOCHAT_URL": self.url, "PICOCHAT_API_KEY": self.key},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def stop(self) -> None:
        if "http" in self.__dict__:
            self.http.close()
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    # --- requests ---

    @property
    def key(self) -> str:
        return str(json.loads((self.home / "client.json").read_text())["api_key"])

    @cached_property
    def http(self) -> httpx.Client:
        """With the first key; there from the server's first start on."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=30)

    def submit(self, spec: Mapping[str, Any]) -> str:
        answer = self.http.post("/api/v1/runs", json=dict(spec))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/api/v1/runs/{run_id}").raise_for_status().json()
        return found

    def stage(self, run_id: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(s for s in self.run(run_id)["stages"] if s["name"] == name)
        return found

    def digests(self, run_id: str) -> dict[str, str]:
        """Artifact path to sha256 of a run."""
        page = self.http.get(f"/api/v1/runs/{run_id}/artifacts", params={"limit": 1000}).raise_for_status()
        return {row["path"]: row["sha256"] for row in page.json()["data"]}

    def events(self, run_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = 0
        while True:
            page = (
                self.http.get(f"/api/v1/runs/{run_id}/events", params={"after": after, "limit": 1000})
                .raise_for_status()
                .json()
            )
            found += page["data"]
            if not page["has_more"]:
                return found
            after = found[-1]["seq"]

    def wait_final(self, run_id: str) -> dict[str, Any]:
        self.wait_until(
            lambda: self.run(run_id)["state"] in ("succeeded", "blocked", "failed", "cancelled"),
            f"{run_id} to end",
        )
        return self.run(run_id)

    def wait_until(self, happened: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds} s for {what}\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of all process logs, for a failing test's message."""
        parts = []
        for path in sorted(self.home.glob("*.out")):
            parts.append(f"--- {path.name}\n" + path.read_text(errors="replace")[-3000:])
        return "\n".join(parts)

    def _ready(self, process: "subprocess.Popen[bytes]") -> bool:
        assert process.poll() is None, f"the server ended with {process.returncode}\n{self.logs()}"
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def _start(
        self, command: list[str], name: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, **(environment or {})},
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process


@contextmanager
def running(stack: Stack, *, workers: int = 1) -> Iterator[Stack]:
    """Start the server and `workers` workers; stop them at the end."""
    try:
        stack.start_server()
        for number in range(1, workers + 1):
            stack.start_worker(f"w{number}")
        yield stack
    finally:
        stack.stop()


def processes_of(attempt_mark: str) -> list[int]:
    """Pids whose environment carries `PICOCHAT_ATTEMPT=<mark>`."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"PICOCHAT_ATTEMPT={attempt_mark}".encode() in environment.split(b"\0"):
                found.append(int(folder.name))
    return found


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """kill -9 a process and everything below it."""
    pids = [process.pid, *_descendants(process.pid)]
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(10)


def _descendants(pid: int) -> list[int]:
    children = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                children.append(int(folder.name))
    return children + [deeper for child in children for deeper in _descendants(child)]
