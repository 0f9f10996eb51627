"""Rank 0 sets up, the other ranks wait: `stages/<stage>/ddp_control.json`, on a folder that all machines share.

Rank 0 hashes the inputs and plans the data once, which may take long, and renews the file meanwhile. The others look at the
file instead of sitting in a collective, which could tell them neither why nothing comes nor where to look. A rank
ends when rank 0 failed, when the file is not renewed any more, and when it has waited for too long.

With several machines ranks also wait for the end of rank 0, which measures and reports after the training: torchrun gives
up the machine that a rank 0 works on five minutes after the others have gone (its exit barrier).
"""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from picochat_contract.config_base import Config
from picochat_contract.errors import Code, ContractError
from picochat_contract.manifest import StageError
from pydantic import ValidationError

from picochat_trainer.atomic import write_text
from picochat_trainer.context import Interrupted
from picochat_trainer.settings import RankSettings

logger = logging.getLogger(__name__)

CONTROL = "ddp_control.json"
MISSED_BEATS = 5  # of rank 0, after which it counts as gone; a file server may show a file up to 60 s late
MISSED_BEFORE_FIRST = 20  # until the file is there at all: rank 0 may still be loading torch
_POLL_SECONDS = 0.5

T = TypeVar("T")


class SetupState(StrEnum):
    PREPARING = "preparing"  # rank 0 works; `time` moves on
    READY = "ready"  # what it prepared is on disk; `time` goes on moving
    DONE = "done"  # the manifest is written
    FAILED = "failed"  # it ended; `error` says why
    INTERRUPTED = "interrupted"  # it was told to stop


class Control(Config):
    """Content of the file."""

    state: SetupState
    attempt: str
    """Of torchrun: a file of an earlier attempt means nothing."""
    pid: int
    host: str
    log: str
    started_at: datetime
    time: datetime
    """When it was last renewed, by rank 0's clock."""
    error: StageError | None = None


class RanksNotReadyError(RuntimeError):
    """The other ranks cannot go on for a reason that is not the user's data: exit 1, and others may do better."""


class RankSetup:
    """One rank's side of the set-up. `join` is called by each rank once it has all that it needs."""

    def __init__(
        self,
        stage_dir: Path,
        *,
        is_main: bool,
        attempt: str,
        settings: RankSettings,
        join: Callable[[], None],
        awaits_end: bool = False,
    ) -> None:
        self._path = stage_dir / CONTROL
        self._log = stage_dir / "log.txt"
        self._is_main = is_main
        self._attempt = attempt
        self._settings = settings
        self._join = join
        self._awaits_end = awaits_end and not is_main
        self._state = SetupState.PREPARING
        self._started_at = datetime.now(UTC)
        self._done = threading.Event()
        self._writing = threading.Lock()
        self._heart: threading.Thread | None = None
        if is_main:
            self._write()
            self._heart = threading.Thread(target=self._beat, name="ddp-setup-heartbeat", daemon=True)
            self._heart.start()

    def main_first(self, prepare: Callable[[], T]) -> T:
        """Prepare on rank 0, then on the others, which find what it left; then join all ranks."""
        if not self._is_main:
            self._wait(SetupState.READY)
        prepared = prepare()
        if self._is_main:
            self._state = SetupState.READY
            self._write()
        self._join()
        return prepared

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Inside, how rank 0 ends is told to the ranks that wait for it; they wait for that at the end of this."""
        try:
            yield
            if self._is_main:
                self._end(SetupState.DONE)
            elif self._awaits_end:
                self._wait(SetupState.DONE)
        except ContractError as error:
            self._fail(StageError(code=error.code, message=error.message, param=error.param))
            raise
        except Interrupted:
            self._fail(None)
            raise
        except Exception as error:
            self._fail(StageError(code=Code.INTERNAL, message=f"{type(error).__name__}: {error}"))
            raise

    def _fail(self, error: StageError | None) -> None:
        if self._is_main:
            self._end(SetupState.INTERRUPTED if error is None else SetupState.FAILED, error)

    def _wait(self, wanted: SetupState) -> None:
        """Return once rank 0 is so far; raise its ContractError, Interrupted, or RanksNotReadyError."""
        begun = last_sign = time.monotonic()
        seen: Control | None = None
        while True:
            found = self._read()
            if found is not None and found.state in (wanted, SetupState.DONE):
                return
            if found is not None and found.state is SetupState.INTERRUPTED:
                raise Interrupted
            if found is not None and found.state is SetupState.FAILED:
                raise _error_of(found)
            now = time.monotonic()
            if found != seen:
                seen, last_sign = found, now
            self._refuse_waiting(seen, waited=now - begun, silent=now - last_sign)
            time.sleep(min(_POLL_SECONDS, self._settings.heartbeat_seconds / 2))

    def _refuse_waiting(self, seen: Control | None, *, waited: float, silent: float) -> None:
        beat = self._settings.heartbeat_seconds
        if seen is None:
            if silent > min(beat * MISSED_BEFORE_FIRST, self._settings.timeout.total_seconds()):
                raise RanksNotReadyError(
                    f"rank 0 has not begun its set-up within {silent:.0f} s: there is no {self._path} of this start. Do "
                    f"all machines see the same folder? See its log at {self._log}"
                )
            return
        who = f"rank 0 (pid {seen.pid} on {seen.host})"
        if silent > beat * MISSED_BEATS:
            raise RanksNotReadyError(
                f"{who} has not given a sign of life since {seen.time:%Y-%m-%d %H:%M:%S} UTC, {silent:.0f} s ago, and "
                f"should every {beat:g} s; see its log at {seen.log}"
            )
        if seen.state is SetupState.PREPARING and waited > self._settings.timeout.total_seconds():
            raise RanksNotReadyError(
                f"{who} has not finished its set-up since {seen.started_at:%Y-%m-%d %H:%M:%S} UTC, waited for "
                f"{waited / 60:.3g} minutes; see its log at {seen.log}, or raise PICOCHAT_DDP_TIMEOUT_MINUTES "
                f"(now {self._settings.timeout_minutes:g})"
            )

    def _read(self) -> Control | None:
        found = read_control(self._path.parent)
        return found if found is not None and found.attempt == self._attempt else None

    def _beat(self) -> None:
        while not self._done.wait(self._settings.heartbeat_seconds):
            try:
                self._write()
            except OSError as error:  # a full disk ends the set-up itself, with a better message
                logger.warning("cannot renew %s: %s", self._path, error)

    def _end(self, state: SetupState, error: StageError | None = None) -> None:
        self._done.set()
        if self._heart is not None:
            self._heart.join()  # it must not write over the last word
        self._state = state
        self._write(error)

    def _write(self, error: StageError | None = None) -> None:
        with self._writing:  # else a sign of life could bring an earlier state back
            control = Control(
                state=self._state,
                attempt=self._attempt,
                pid=os.getpid(),
                host=platform.node(),
                log=str(self._log),
                started_at=self._started_at,
                time=datetime.now(UTC),
                error=error,
            )
            write_text(self._path, control.model_dump_json(indent=2) + "\n")


def read_control(stage_dir: Path) -> Control | None:
    """What the file says, whoever started; None where there is none that can be read."""
    try:
        return Control.model_validate_json((stage_dir / CONTROL).read_bytes())
    except (OSError, ValidationError):
        return None


def _error_of(found: Control) -> Exception:
    """What ended rank 0, as this rank's own end."""
    error = found.error
    if error is None or error.code == Code.INTERNAL:
        reason = error.message if error is not None else "it did not say why"
        return RanksNotReadyError(
            f"rank 0 (pid {found.pid} on {found.host}) failed: {reason}; see its log at {found.log}"
        )
    return ContractError(Code(error.code), error.message, param=error.param)
