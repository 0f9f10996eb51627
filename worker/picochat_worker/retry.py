"""Repeat a call until the server answers, or until there is no more point in it."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from picochat_worker.errors import Unreachable
from picochat_worker.lease import Lease

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 5.0
TICK_SECONDS = 0.1
logger = logging.getLogger(__name__)


def until_answered(call: Callable[[], T], *, check: Callable[[], None], give_up: Callable[[], bool]) -> T:
    """Return what `call` answers, trying again while it is Unreachable, with growing pauses.

    `check` raises to break off (the lease is lost); when `give_up` is true the last Unreachable is raised.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        check()
        try:
            return call()
        except Unreachable as error:
            if give_up():
                raise
            logger.warning("no answer, will try again: %s", error)
        end = time.monotonic() + pause * random.uniform(0.5, 1.0)
        while time.monotonic() < end:
            check()
            time.sleep(TICK_SECONDS)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


class Patience:
    """Gives up on a call that fails for `seconds` while heartbeats are answered.

    Time in which the whole server is away does not count: nothing else could be done in it.
    """

    def __init__(self, lease: Lease, seconds: float) -> None:
        self._lease = lease
        self._seconds = seconds
        self._failing_since: float | None = None

    def exhausted(self, *, failing: bool = True) -> bool:
        now = self._lease.now()
        if not failing or now >= self._lease.stop_at:
            self._failing_since = None
            return False
        if self._failing_since is None:
            self._failing_since = now
        return now - self._failing_since > self._seconds
