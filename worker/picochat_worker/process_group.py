"""The processes of one attempt: start, ask to stop, kill, and make sure that none is left."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from picochat_worker import launcher
from picochat_worker.process_tree import Process, kill_all, members
from picochat_worker.settings import ATTEMPT_MARK

# The launcher needs nothing but the standard library.
LAUNCHER = (sys.executable, "-I", "-S", launcher.__file__)


class ProcessGroup:
    """A stage process in a session of its own, and all that comes of it: torchrun's ranks, for one."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str],
        folder: Path,
        log: Path,
    ) -> None:
        """Start `command` in `folder`, output straight to `log`: a pipe that nobody drains stalls a training.

        Start it from a thread that outlives the stage: the kernel ties the stage's life to that thread.
        """
        self._mark = f"{ATTEMPT_MARK}={environment[ATTEMPT_MARK]}"
        self._known: set[tuple[int, int]] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._leader = subprocess.Popen(
                [*LAUNCHER, str(os.getpid()), "--", *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._leader.pid

    def poll(self) -> int | None:
        """The exit code once the leader has ended (negative: the signal), else None."""
        return self._leader.poll()

    def terminate(self) -> None:
        """SIGTERM to the leader's group; a stage of several ranks passes it on to them."""
        self.members()  # remember the ranks while their parent still lives
        if self._leader.poll() is None:
            _signal_group(self._leader.pid, signal.SIGTERM)

    def kill(self) -> list[Process]:
        """SIGKILL everything that belongs to the attempt; return what did not go (normally nothing)."""
        self.members()
        if self._leader.poll() is None:
            _signal_group(self._leader.pid, signal.SIGKILL)
        left = kill_all(self.members)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it is among those left
            self._leader.wait(1)
        return left

    def members(self) -> list[Process]:
        return members(self._mark, self._known, session=self._leader.pid)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)
