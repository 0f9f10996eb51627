"""Ask the server for work, one stage at a time, over HTTP alone. A hint (a stage id from Celery) only
shortens the wait; a refused claim is normal, since hints are repeated, late, or taken by another worker.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from picochat_contract.api import Claim, ClaimIn
from picochat_contract.errors import Code

from picochat_worker.errors import Rejected, Unreachable
from picochat_worker.stop_request import StopRequest

FIRST_PAUSE_SECONDS = 0.2
AWAY_PAUSE_SECONDS = 10.0  # most between two tries while the server is away
TICK_SECONDS = 0.2
FATAL = frozenset({Code.UNAUTHENTICATED, Code.FORBIDDEN_SCOPE})
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Hint:
    stage: str
    done: threading.Event = field(default_factory=threading.Event)


class Poller:
    """`run` belongs to one thread for the life of the process; `offer` may be called from another."""

    def __init__(
        self,
        *,
        claim: Callable[[ClaimIn], Claim | None],
        supervise: Callable[[Claim, float], None],
        ask: ClaimIn,
        poll_seconds: float,
        stop: StopRequest,
    ) -> None:
        """`supervise` gets the claim and the time.monotonic() at which it was asked for."""
        self._claim = claim
        self._supervise = supervise
        self._ask = ask
        self._poll_seconds = poll_seconds
        self._stop = stop
        self._hints: queue.SimpleQueue[_Hint] = queue.SimpleQueue()
        self._pause = 0.0
        self._ended = threading.Event()

    def run(self, *, once: bool = False) -> None:
        """Work until told to stop; with `once`, until one claim was answered. Raises Rejected for a bad key."""
        try:
            while not self._stop.draining:
                hint = self._wait(self._pause * random.uniform(0.5, 1.0))
                if self._stop.draining:
                    return
                answered = self._work(hint)
                if once and answered:
                    return
        finally:
            self._ended.set()

    def offer(self, stage: str) -> None:
        """Have `stage` claimed and run if it is free; return when that is over."""
        hint = _Hint(stage)
        self._hints.put(hint)
        while not hint.done.wait(TICK_SECONDS):
            if self._ended.is_set():
                return

    def _wait(self, seconds: float) -> _Hint | None:
        end = time.monotonic() + seconds
        while not self._stop.draining:
            left = end - time.monotonic()
            try:
                return self._hints.get(timeout=max(0.0, min(TICK_SECONDS, left)))
            except queue.Empty:
                if left <= 0:
                    return None
        return None

    def _work(self, hint: _Hint | None) -> bool:
        """Claim and run one stage; False where the server did not answer."""
        try:
            asked_at = time.monotonic()
            claim = self._claim(self._ask.model_copy(update={"stage": hint.stage if hint else None}))
            if claim:
                self._supervise(claim, asked_at)
                self._pause = 0.0
            elif not hint:
                self._pause = self._longer(self._poll_seconds)
        except Unreachable as error:
            logger.warning("the server does not answer, will ask again: %s", error)
            self._pause = self._longer(max(self._poll_seconds, AWAY_PAUSE_SECONDS))
            return False
        except Rejected as error:
            if error.code in FATAL:
                raise
            logger.warning("claim refused: %s", error)
            self._pause = self._longer(self._poll_seconds)
        finally:
            if hint:
                hint.done.set()
        return True

    def _longer(self, limit: float) -> float:
        return min(limit, max(FIRST_PAUSE_SECONDS, self._pause * 2))
