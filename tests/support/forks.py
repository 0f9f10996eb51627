"""Processes that begin with torch and the trainer loaded: forks of a server that imported them once.

Imports are four of the five seconds that a tiny training takes. What a test is to hold of the start itself (imports, a
stop during them, torchrun) needs a program of its own instead.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.multiprocessing
from picochat_contract.manifest import StageJob
from picochat_trainer.atomic import write_text
from picochat_trainer.process import main
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

START = "forkserver"
_CONTEXT = multiprocessing.get_context(START)
_CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo",
        "torch.distributed.fsdp",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "pandas",  # pyarrow asks for it
        "picochat_trainer.process",
        "picochat_trainer.stages.base",
        "picochat_trainer.stages.sft",
        "picochat_trainer.stages.evaluate",
        "picochat_trainer.torchrun",
    ]
)


class ForkedStage:
    """`python -m picochat_trainer ARGUMENTS`, to be asked as `subprocess.Popen` is."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        # A daemon: what a failed test leaves behind ends with pytest.
        start = (arguments, str(log), dict(os.environ))
        self._process = _CONTEXT.Process(target=_run_stage, args=start, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("a forked stage", timeout or 0)
        return code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_stage(
    run_dir: Path, job: StageJob, *, keep_open: Sequence[int] = (), log: str = "log.txt"
) -> ForkedStage:
    """Stands in for `launch.start_stage`; descriptors do not stay open."""
    stage_dir = run_dir / "stages" / job.stage.value
    stage_dir.mkdir(parents=True, exist_ok=True)
    write_text(stage_dir / "stage.json", job.model_dump_json(indent=2) + "\n")
    arguments = [job.stage.value, "--config", str(stage_dir / "stage.json"), "--out", str(run_dir)]
    return ForkedStage(arguments, stage_dir / log)


def run_ranks(work: Callable[..., None], arguments: tuple[Any, ...], num_ranks: int) -> None:
    """Call `work(rank, *arguments)` in a process for each rank; raise if one of them fails."""
    torch.multiprocessing.start_processes(work, arguments, nprocs=num_ranks, start_method=START)


def _run_stage(arguments: list[str], log: str, environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    SubprocessHandler._popen = lambda self, command, variables: _ForkedRank(command, variables)
    sys.exit(main(arguments))


class _ForkedRank:
    """A rank of a forked launcher, to be asked as `subprocess.Popen` is: torchrun cannot tell it from a program."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        module = command.index("picochat_trainer")
        self.args = command
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be_rank(command[module + 1 :], environment)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or threading.TIMEOUT_MAX)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode


def _be_rank(arguments: Sequence[str], environment: dict[str, str]) -> None:
    """End this process as a rank that was started with `arguments` would."""
    code = 1
    try:
        for signum in (signal.SIGTERM, signal.SIGINT):  # the launcher passes them on
            signal.signal(signum, signal.SIG_DFL)
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        code = main(list(arguments))
    finally:
        os._exit(code)
