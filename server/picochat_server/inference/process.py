"""One model process: start it on a free loopback port, wait until it is healthy, end it with its group."""

import asyncio
import os
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from picochat_server.inference import keeper

HEALTH_POLL_SECONDS = 0.1
STOP_SECONDS = keeper.TERM_SECONDS + 3
TAIL_BYTES = 2000


class ModelHostError(Exception):
    """No model process can answer; the message ends with the tail of its log where there is one."""


@dataclass(frozen=True, kw_only=True)
class ModelProcess:
    """A healthy model process."""

    process: asyncio.subprocess.Process
    base_url: str
    api_key: str
    log: Path

    @property
    def is_alive(self) -> bool:
        return self.process.returncode is None

    def log_tail(self) -> str:
        return _tail(self.log, self.api_key)

    async def stop(self) -> None:
        await _stop(self.process)


async def start(
    command: Sequence[str],
    *,
    checkpoint: Path,
    tokenizer: Path,
    name: str,
    log: Path,
    client: httpx.AsyncClient,
    deadline_seconds: float,
) -> ModelProcess:
    """Start `command` for one checkpoint; raise ModelHostError if it is not healthy in time."""
    api_key = secrets.token_urlsafe(32)
    port = _free_port()
    process = await _spawn(
        [
            *command,
            *("--checkpoint", str(checkpoint)),
            *("--tokenizer", str(tokenizer)),
            *("--host", "127.0.0.1"),
            *("--port", str(port)),
            *("--model-name", name),
            *("--api-key-env", keeper.KEY_VARIABLE),
        ],
        api_key,
        log,
    )
    model = ModelProcess(process=process, base_url=f"http://127.0.0.1:{port}", api_key=api_key, log=log)
    try:
        await _until_healthy(model, client, deadline_seconds)
    except BaseException:
        await asyncio.shield(_stop(process))
        raise
    return model


async def _spawn(command: Sequence[str], api_key: str, log: Path) -> asyncio.subprocess.Process:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", keeper.__name__, "--"),
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    assert process.stdin is not None
    process.stdin.write(api_key.encode() + b"\n")
    return process


async def _until_healthy(model: ModelProcess, client: httpx.AsyncClient, deadline_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_seconds
    while loop.time() < deadline:
        if not model.is_alive:
            raise ModelHostError(f"the model process ended while it was starting: {model.log_tail()}")
        try:
            answer = await client.get(f"{model.base_url}/healthz", timeout=2)
            if answer.is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        await asyncio.sleep(HEALTH_POLL_SECONDS)
    raise ModelHostError(f"the model process was not ready after {deadline_seconds:g} s: {model.log_tail()}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Close the keeper's input, which ends the group; kill the group if that takes too long."""
    if process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path, api_key: str) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        text = file.read().decode(errors="replace").strip()
    return text.replace(api_key, "***") or "its log is empty"
