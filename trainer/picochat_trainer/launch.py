"""Starts a stage process in a session of its own, output to its log file, and waits for it.

A stop signal to the caller becomes SIGTERM to the stage, which writes a checkpoint and exits 75; a second one kills
its process group.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from picochat_contract.events import StageEvent
from picochat_contract.manifest import Manifest, StageError, StageJob

from picochat_trainer.atomic import write_text
from picochat_trainer.event_tail import EventTail

POLL_SECONDS = 0.1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """How a stage process ended."""

    exit_code: int
    """Negative: killed by that signal."""
    manifest: Manifest | None
    error: StageError | None
    stopped: bool
    """The caller got a stop signal."""


def run_stage(
    run_dir: Path,
    job: StageJob,
    on_event: Callable[[StageEvent], None] = lambda event: None,
    *,
    keep_open: Sequence[int] = (),
    log: str = "log.txt",
) -> StageResult:
    """Run one stage to its end, telling `on_event` what it says; `keep_open` descriptors stay open in it.

    Its output goes to the file `log` of its stage folder.
    """
    stage_dir = run_dir / "stages" / job.stage.value
    tail = EventTail(stage_dir / "events.jsonl", from_end=True)
    process = start_stage(run_dir, job, keep_open=keep_open, log=log)
    with _forward_stop(process) as stop:
        code: int | None = None
        while code is None:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_SECONDS)
            for event in tail.new_events():
                on_event(event)
    return StageResult(
        exit_code=code,
        manifest=read_manifest(stage_dir) if code == 0 else None,
        error=_read_error(stage_dir) if code != 0 else None,
        stopped=bool(stop),
    )


def start_stage(
    run_dir: Path, job: StageJob, *, keep_open: Sequence[int] = (), log: str = "log.txt"
) -> subprocess.Popen[bytes]:
    """Write stage.json and start the process; with several ranks it starts torchrun by itself."""
    stage_dir = run_dir / "stages" / job.stage.value
    stage_dir.mkdir(parents=True, exist_ok=True)
    write_text(stage_dir / "stage.json", job.model_dump_json(indent=2) + "\n")
    command = [sys.executable, "-m", "picochat_trainer", job.stage.value]
    command += ["--config", str(stage_dir / "stage.json"), "--out", str(run_dir)]
    with (stage_dir / log).open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep_open),
        )


def read_manifest(stage_dir: Path) -> Manifest | None:
    """The manifest of a finished stage; None where there is none or it cannot be read."""
    try:
        return Manifest.model_validate_json((stage_dir / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None


def _read_error(stage_dir: Path) -> StageError | None:
    try:
        return StageError.model_validate_json((stage_dir / "error.json").read_bytes())
    except (OSError, ValueError):
        return None


@contextmanager
def _forward_stop(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass stop signals on while inside; yields the list of those that came."""
    received: list[int] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        with_force = len(received) > 1
        try:
            if with_force:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.send_signal(signal.SIGTERM)
        except ProcessLookupError:  # it has just ended
            pass

    before = {signum: signal.signal(signum, forward) for signum in STOP_SIGNALS}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
