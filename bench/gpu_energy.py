"""Joules that one GPU took between two moments of another process: the driver's counter, read beside it all the time.

The process that is measured is not asked, so that its steps take what they take without this. The driver brings its counter
up to date about ten times a second; between readings the power is taken to be even, so that a span of seconds is good to
some percent. The counter is the whole device's.
"""

import ctypes
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from types import TracebackType
from typing import Self

from picochat_trainer.training.energy import total_millijoules

INTERVAL_SECONDS = 0.05
_UUID = "import torch; print(torch.cuda.get_device_properties(0).uuid)"


def first_device() -> Callable[[], int]:
    """What reads the millijoules of the first CUDA device; raise OSError where there is none, or no counter."""
    # In a process of its own: this one is not to have a CUDA context beside those that are measured.
    asked = subprocess.run([sys.executable, "-c", _UUID], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise OSError("no CUDA device")
    uuid, nvml = f"GPU-{asked.stdout.strip()}", ctypes.CDLL("libnvidia-ml.so.1")

    def read() -> int:
        return total_millijoules(nvml, uuid)

    read()
    return read


class EnergyLog:
    """Inside, a thread notes what `read` gives, in millijoules, with `time.perf_counter()`."""

    def __init__(self, read: Callable[[], int], interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._read = read
        self._interval = interval_seconds
        self._seconds: list[float] = []
        self._millijoules: list[int] = []
        self._problem: OSError | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def joules(self, begin: float, end: float) -> float:
        """Between two moments of `time.perf_counter()`; raise OSError unless the counter was read around both."""
        if self._problem is not None:
            raise self._problem
        return (self._at(end) - self._at(begin)) / 1000

    def _watch(self) -> None:
        try:
            self._note()
            while not self._is_over.wait(self._interval):
                self._note()
            self._note()
        except OSError as error:
            self._problem = error

    def _note(self) -> None:
        value = self._read()
        self._seconds.append(time.perf_counter())
        self._millijoules.append(value)

    def _at(self, moment: float) -> float:
        after = bisect_left(self._seconds, moment)
        if after == 0 or after == len(self._seconds):
            raise OSError("the counter was not read all the time")
        (t0, t1), (e0, e1) = self._seconds[after - 1 : after + 1], self._millijoules[after - 1 : after + 1]
        return e0 + (e1 - e0) * (moment - t0) / (t1 - t0)
