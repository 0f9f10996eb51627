"""The home folder of the embedded mode belongs to one control plane at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

LOCK_FILE = "up.lock"


class Announced(NamedTuple):
    """What the control plane of a home said about itself."""

    pid: int
    url: str


class HomeTakenError(Exception):
    """Another control plane runs on this home; the message says which."""


class HomeLock:
    """Held while a control plane runs; `announce` says its address to whoever comes next."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def announce(self, url: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{os.getpid()} {url}\n")
        self._file.flush()


@contextmanager
def hold(home: Path) -> Iterator[HomeLock]:
    """Take the home for this process. The kernel gives the lock back however the process ends."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / LOCK_FILE).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = announced(home)
            where = f" at {other.url} (process {other.pid})" if other else ""
            raise HomeTakenError(
                f"a control plane already runs on {home}{where}; use that one, stop it with Ctrl-C in its terminal, "
                "or give another folder with PICOCHAT_HOME"
            ) from None
        yield HomeLock(file)


def announced(home: Path) -> Announced | None:
    """The newest announcement on this home; whoever made it may have gone since."""
    try:
        pid, url = (home / LOCK_FILE).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return Announced(int(pid), url)
