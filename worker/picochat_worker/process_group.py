"""The processes of one attempt: start, ask to stop, kill, and make sure that none is left."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from picochat_contract.exit_codes import StageExit

from picochat_worker import launcher, rank
from picochat_worker.process_tree import Process, kill_all, members
from picochat_worker.settings import ATTEMPT_MARK

PYTHON_ISOLATED = ("-I", "-S")  # the launchers need nothing but the standard library
SIGNAL_PRECEDENCE_NS = 5 * 10**9


class ProcessGroup:
    """A stage process, or torchrun with its ranks, in a session of its own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: dict[str, str],
        folder: Path,
        log: Path,
        ranks: Path | None,
    ) -> None:
        """Start `command` in `folder`, output straight to `log`: a pipe that nobody drains stalls a training.

        `ranks` is where torchrun's ranks write how they ended; None for a single process. Start it from a
        thread that outlives the stage: the kernel ties the stage's life to the starting thread.
        """
        self._mark = f"{ATTEMPT_MARK}={environment[ATTEMPT_MARK]}"
        self._ranks = ranks
        self._known: set[tuple[int, int]] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._leader = subprocess.Popen(
                [*_isolated(launcher.__file__), str(os.getpid()), "--", *command],
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
        code = self._leader.poll()
        if code is None or self._ranks is None:
            return code
        return _rank_exit(self._ranks, code)

    def terminate(self) -> None:
        """SIGTERM to the leader's group; torchrun passes it on to its ranks."""
        self.members()  # remember the ranks while their parent still lives
        if self._leader.poll() is None:
            _signal_group(self._leader.pid, signal.SIGTERM)

    def kill(self) -> list[Process]:
        """SIGKILL everything that belongs to the attempt; return what did not go (normally nothing)."""
        self.members()
        if self._leader.poll() is None:
            _signal_group(self._leader.pid, signal.SIGKILL)
        left = kill_all(self.members)
        self._leader.wait()
        return left

    def members(self) -> list[Process]:
        return members(self._mark, self._known, session=self._leader.pid)


def stage_command(
    stage_command: Sequence[str],
    arguments: Sequence[str],
    *,
    nproc: int,
    torchrun: Sequence[str],
    ranks: Path,
) -> list[str]:
    """The command line of a stage: the trainer itself, or torchrun over `nproc` of them."""
    command = [*stage_command, *arguments]
    if nproc == 1:
        return command
    ranks.mkdir(parents=True, exist_ok=True)
    distributed = [*torchrun, "--standalone", f"--nproc_per_node={nproc}", "--no-python"]
    return [*distributed, *_isolated(rank.__file__), str(ranks), "--", *command]


def _isolated(script: str) -> list[str]:
    return [sys.executable, *PYTHON_ISOLATED, script]


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _rank_exit(folder: Path, torchrun_code: int) -> int:
    """How a torchrun stage ended: the first bad end of a rank, which is the cause of the others'.

    Rank 0 writes the manifest last, so its 0 stands even if a finished rank died while unloading (gloo's
    threads abort now and then). A kill from outside makes its neighbours fail within moments, and their
    record may come first: a signal within a few seconds of the first end wins.
    """
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    if records.get("0", {}).get("exit_code") == StageExit.DONE:
        return StageExit.DONE
    bad = sorted(
        (record["time_ns"], record["exit_code"]) for record in records.values() if record["exit_code"]
    )
    if not bad:
        return torchrun_code
    first_time, first_code = bad[0]
    killed = [code for time_ns, code in bad if code < 0 and time_ns - first_time < SIGNAL_PRECEDENCE_NS]
    return int(killed[0] if killed else first_code)
