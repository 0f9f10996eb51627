"""One command given on several machines that share a folder: the first leads, the others work for it.

The leader does all that one machine can do and announces each stage of several machines in `machines.json`, with the job as
it starts it itself. A follower starts the same job, so that their ranks find each other, and ends with the leader's
exit code. It needs no more than the folder: settings come with the job, paths in it must mean the same everywhere.
"""

import fcntl
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final
from uuid import uuid4

from picochat_contract.config_base import Config
from picochat_contract.configs import Resources
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.manifest import StageJob
from pydantic import ValidationError

from picochat_trainer.atomic import write_text
from picochat_trainer.launch import run_stage

ANNOUNCEMENT: Final = "machines.json"
LEAD_LOCK: Final = ".lead.lock"
_POLL_SECONDS: Final = 0.5


class LeadState(StrEnum):
    WORKING = "working"  # alone, on what one machine can do
    STAGE = "stage"  # `job` is for all machines
    ENDED = "ended"  # with `exit_code`


class Announcement(Config):
    """Content of the file. Only the leader writes it."""

    run: str
    """Of one call of the command: an older file means nothing."""
    number: int
    state: LeadState
    host: str
    time: datetime
    job: StageJob | None = None
    exit_code: int | None = None


def together(
    run_dir: Path, resources: Resources, command: Callable[[], int], say: Callable[[str], None]
) -> int:
    """Run `command` on the machine that comes first, work for it on the others; the same exit code on all."""
    if resources.nnodes == 1:
        return command()
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_dir / LEAD_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _take(descriptor):
            say(f"another machine leads the run in {run_dir}; this one works for it")
            return _follow(run_dir, descriptor)
        say(f"leading the run in {run_dir}; give the same command on {resources.nnodes - 1} more")
        _write(run_dir, uuid4().hex, 0, LeadState.WORKING)
        code: int = ClientExit.RUN_FAILED
        try:
            code = command()
        finally:
            _say_next(run_dir, LeadState.ENDED, exit_code=code)
        return code
    finally:
        os.close(descriptor)


def announce(run_dir: Path, job: StageJob) -> StageJob:
    """Have the other machines start `job`; returns it with the id by which its ranks find each other."""
    named = job.model_copy(update={"attempt_id": uuid4().hex})
    _say_next(run_dir, LeadState.STAGE, job=named)
    return named


def _follow(run_dir: Path, descriptor: int) -> int:
    """Start what the leader announces until it ends."""
    run: str | None = None
    started = -1
    while True:
        is_gone = _take(descriptor)
        found = _read(run_dir)
        if found is not None and found.state is LeadState.ENDED and (is_gone or found.run == run):
            return found.exit_code if found.exit_code is not None else ClientExit.RUN_FAILED
        if is_gone:
            raise ContractError(
                Code.RANKS_NOT_READY,
                f"the machine that led the run in {run_dir} has ended without a word; see its output, and give the command "
                "again on all machines",
                param="nnodes",
            )
        if found is not None and found.state is not LeadState.ENDED:
            run, started = found.run, started if found.run == run else -1
            if found.job is not None and found.number > started:
                started = found.number
                run_stage(run_dir, found.job, log=f"log-{platform.node()}-{os.getpid()}.txt")
        time.sleep(_POLL_SECONDS)


def _say_next(
    run_dir: Path, state: LeadState, *, job: StageJob | None = None, exit_code: int | None = None
) -> None:
    before = _read(run_dir)
    run, number = (uuid4().hex, 0) if before is None else (before.run, before.number)
    _write(run_dir, run, number + 1, state, job=job, exit_code=exit_code)


def _write(
    run_dir: Path,
    run: str,
    number: int,
    state: LeadState,
    *,
    job: StageJob | None = None,
    exit_code: int | None = None,
) -> None:
    announcement = Announcement(
        run=run,
        number=number,
        state=state,
        host=platform.node(),
        time=datetime.now(UTC),
        job=job,
        exit_code=exit_code,
    )
    write_text(run_dir / ANNOUNCEMENT, announcement.model_dump_json(indent=2) + "\n")


def _read(run_dir: Path) -> Announcement | None:
    try:
        return Announcement.model_validate_json((run_dir / ANNOUNCEMENT).read_bytes())
    except (OSError, ValidationError):
        return None


def _take(descriptor: int) -> bool:
    """Take the lock if nobody has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
