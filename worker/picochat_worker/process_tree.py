"""Find every process of an attempt in /proc, wherever it has moved to.

A process group alone is not enough: torchrun starts its ranks in sessions of their own, and orphans go to
init. So a process belongs to an attempt if it carries the attempt's mark in its environment, or is in the
session of a known one, or descends from a known one. Without /proc (macOS) nothing is found; there the
process group is all that a worker can end.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
GONE_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Process:
    pid: int
    parent: int
    session: int
    start_ticks: int
    """With the pid it names one process for ever; pids alone are used again."""
    marks: frozenset[bytes]
    """Entries NAME=value of its environment that were asked for."""


def scan(*marks: str) -> Iterator[Process]:
    """All live processes (no zombies), each with those of `marks` ('NAME=value') that it carries."""
    wanted = frozenset(mark.encode() for mark in marks)
    if not PROC.is_dir():
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            process = _read(entry, wanted)
            if process:
                yield process


def members(mark: str, known: set[tuple[int, int]], session: int | None = None) -> list[Process]:
    """Processes with `mark`, in `session`, or among the `known` (pid, start) ones; and all that these lead to.

    Those are their descendants and everything in their sessions: a session of an attempt's process was made
    by the attempt. `known` grows by what was found, so a process whose parent has died since is recognised.
    """
    processes = {process.pid: process for process in scan(mark) if process.pid != os.getpid()}
    found: set[int] = set()
    grown = {
        pid
        for pid, process in processes.items()
        if process.marks or process.session == session or (pid, process.start_ticks) in known
    }
    while grown:
        found |= grown
        sessions = {processes[pid].session for pid in found}
        grown = {
            pid
            for pid, process in processes.items()
            if pid not in found and (process.parent in found or process.session in sessions)
        }
    known |= {(pid, processes[pid].start_ticks) for pid in found}
    return [processes[pid] for pid in sorted(found)]


def kill_all(
    find: Callable[[], list[Process]], timeout_seconds: float = GONE_TIMEOUT_SECONDS
) -> list[Process]:
    """SIGKILL what `find` answers until it answers nothing; return what is left at the timeout."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        left = find()
        if not left or time.monotonic() > deadline:
            return left
        for process in left:
            _kill(process)
        time.sleep(0.02)


def kill_orphans(work_dir_mark: str) -> list[Process]:
    """End what earlier attempts of this work folder left behind; return what could not be ended.

    Call it only while holding the folder's lock: then no live worker can own these processes.
    """
    known: set[tuple[int, int]] = set()
    return kill_all(lambda: members(work_dir_mark, known))


def _kill(process: Process) -> None:
    current = _read(PROC / str(process.pid), frozenset())
    if current and current.start_ticks == process.start_ticks:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _read(entry: Path, wanted: frozenset[bytes]) -> Process | None:
    try:
        # "pid (name) state ppid pgrp session ...": the name may hold spaces and brackets
        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return None
        environment = _environment(entry) if wanted else []
    except (OSError, IndexError):
        return None  # it ended while we looked
    return Process(
        pid=int(entry.name),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        marks=wanted.intersection(environment),
    )


def _environment(entry: Path) -> list[bytes]:
    try:
        return (entry / "environ").read_bytes().split(b"\0")
    except PermissionError:
        return []  # another user's process is none of ours
