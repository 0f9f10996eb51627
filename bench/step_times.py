"""When the optimizer steps of this process ended, written down at the last one, which then ends the process.

Training benches start one process per row with this in it, so that every program is measured the same way: from outside its
loop, at its optimizer. Needs torch and nothing else, so that it runs in another program's environment too.
"""

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

WARM_STEPS = 5
"""Left out of every figure but the first: compilers, allocators and caches settle in them."""


class StepTimes:
    """Stamps each optimizer step. `started` is the caller's `time.perf_counter()` before it started this process."""

    def __init__(self, out: Path, num_steps: int, started: float) -> None:
        self._out = out
        self._num_steps = num_steps
        self._started = started
        self._ends: list[float] = []
        self._events: list[Any] = []

    def stamp(self, *_: object) -> None:
        """An optimizer step was done. On CUDA without waiting for it: an event tells its time at the end."""
        import torch  # only once the program that is measured has loaded it: its start is a figure too

        if torch.cuda.is_available():
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append(event)
            if len(self._events) == 1:
                torch.cuda.synchronize()
        self._ends.append(time.perf_counter())
        if len(self._ends) == self._num_steps:
            self._finish()

    def _finish(self) -> None:
        import torch

        result: dict[str, object] = {"first_step_seconds": self._ends[0] - self._started}
        if self._events:
            torch.cuda.synchronize()
            pairs = pairwise(self._events)
            result["step_seconds"] = [before.elapsed_time(after) / 1e3 for before, after in pairs]
            result["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
        else:
            pairs = pairwise(self._ends)
            result["step_seconds"] = [after - before for before, after in pairs]
        result["peak_mb"] = peak_mb()
        self._out.write_text(json.dumps(result), encoding="utf-8")
        os._exit(0)  # what the program would do afterwards, reports and checkpoints, is not part of a step


@dataclass(frozen=True)
class Measured:
    """What one process did."""

    step_seconds: tuple[float, ...]
    """Between the ends of successive steps, after the warm-up."""
    first_step_seconds: float
    peak_mb: float
    peak_gpu_mb: float | None
    load_before: float
    """Average number of running processes in the minute before it began."""
    log: str

    @property
    def median(self) -> float:
        return statistics.median(self.step_seconds)


class ChildFailedError(Exception):
    """A measured process ended without its figures; the message is the end of what it wrote."""


def measure(
    command: Callable[[Path, float], Sequence[str]],
    folder: Path,
    variables: Mapping[str, str],
    *,
    warm_steps: int = WARM_STEPS,
    timeout_seconds: float | None = None,
) -> Measured:
    """Run `command(out, started)` with `variables` in its environment; its process makes a StepTimes of both.

    Raise ChildFailedError where it ends without figures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    out, log = folder / "steps.json", folder / "output.txt"
    out.unlink(missing_ok=True)
    load = os.getloadavg()[0]
    with log.open("wb") as file:
        try:
            ended = subprocess.run(
                ["env", *(f"{k}={v}" for k, v in variables.items()), *command(out, time.perf_counter())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=timeout_seconds,
            )
            how = f"exit code {ended.returncode}"
        except subprocess.TimeoutExpired:
            how = f"stopped after {timeout_seconds:.0f} s"
    text = log.read_text(encoding="utf-8", errors="replace")
    if not out.exists():
        last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
        raise ChildFailedError(f"{how}: {last.strip()[:300]}")
    found = json.loads(out.read_text(encoding="utf-8"))
    return Measured(
        step_seconds=tuple(found["step_seconds"][warm_steps - 1 :]),
        first_step_seconds=found["first_step_seconds"],
        peak_mb=found["peak_mb"],
        peak_gpu_mb=found.get("peak_gpu_mb"),
        load_before=load,
        log=text,
    )


def peak_mb() -> float:
    """Linux's VmHWM; ru_maxrss of a child begins with what its parent held when it was started."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def load_line() -> str:
    """The machine's load in words, with a warning where figures will suffer from it."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    line = f"load average {load:.2f} on {cores} cores"
    if load > 0.25 * cores:
        line += ". WARNING: the machine is busy; figures will be low and only the ratios say something"
    return line
