"""How long and how often to try again: exponential backoff with full jitter under one patience.

Patience counts from the first failure, and starts anew after a success (`succeeded`).
Source of the jitter rule: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015).
"""

import random
import time
from collections.abc import Callable
from typing import Protocol

FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 5.0


class Clock(Protocol):
    """Seam for tests: real time, or time that passes only by sleeping."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


Notice = Callable[[str, float], None]
"""Called at the first failure of a series: why, and for how many seconds the client goes on trying."""


class Patience:
    """One series of tries."""

    def __init__(self, clock: Clock, timeout_seconds: float, notice: Notice | None = None) -> None:
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._notice = notice
        self._first_failure: float | None = None
        self._num_failures = 0

    def succeeded(self) -> None:
        self._first_failure = None
        self._num_failures = 0

    def pause(self, why: str, retry_after_seconds: float | None = None) -> bool:
        """Sleep before the next try; False, without sleeping, if the patience is used up."""
        now = self._clock.monotonic()
        if self._first_failure is None:
            self._first_failure = now
        left = self._first_failure + self._timeout_seconds - now
        if left <= 0 or (retry_after_seconds or 0) > left:
            return False
        if self._num_failures == 0 and self._notice is not None:
            self._notice(why, left)
        ceiling = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0**self._num_failures)
        self._num_failures = min(self._num_failures + 1, 16)
        delay = (
            retry_after_seconds if retry_after_seconds is not None else random.uniform(ceiling / 4, ceiling)
        )
        self._clock.sleep(min(delay, left))
        return True
