"""The thread that runs outbox, reaper and reconciler, one after the other, every `loop_seconds`."""

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from picochat_server.artifacts.store import LocalStore
from picochat_server.loops.guard import round_lock
from picochat_server.loops.outbox import CeleryHints, Hints, NoHints, forget_published, publish
from picochat_server.loops.reaper import reap
from picochat_server.loops.reconciler import reconcile
from picochat_server.settings import Settings

logger = logging.getLogger(__name__)
STOP_SECONDS = 15


class Rounds:
    """Background rounds of one server. `run_once` is one round; `start` repeats it in a thread."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        sessions: sessionmaker[Session],
        store: LocalStore,
        *,
        started_at: float,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._sessions = sessions
        self._store = store
        self._started_at = started_at
        self._hints: Hints = (
            CeleryHints(settings.broker_url, settings.queue) if settings.broker_url else NoHints()
        )
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="picochat-rounds", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its present step."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        if isinstance(self._hints, CeleryHints):
            self._hints.close()

    def run_once(self) -> bool:
        """One round; False if another server was at it. A step that fails does not stop the others."""
        with round_lock(self._engine) as is_mine:
            if is_mine:
                for step in self._steps():
                    self._try(step)
        return is_mine

    def _steps(self) -> list[Callable[[], object]]:
        settings = self._settings
        steps: list[Callable[[], object]] = []
        # For one lease after a start workers get the time to come back: their leases ran while we were away.
        if time.monotonic() - self._started_at >= settings.lease_seconds:
            steps.append(lambda: reap(self._sessions, self._store, settings))
        if settings.broker_url:
            steps.append(lambda: reconcile(self._sessions, settings.rehint_seconds))
        steps.append(lambda: publish(self._sessions, self._hints))
        steps.append(lambda: forget_published(self._sessions))
        return steps

    def _try(self, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception:  # the edge of this thread: whatever it is, the next round tries again
            logger.exception("a background step failed; it is tried again next round")

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.loop_seconds):
            try:
                self.run_once()
            except Exception:  # taking the lock failed, mostly because the database is away
                logger.exception("a background round could not start; it is tried again")
