"""Keep the lease alive from a thread of its own: nothing that is slow elsewhere may delay a heartbeat."""

import logging
import threading
from collections.abc import Callable

from picochat_worker.control_plane import AttemptChannel
from picochat_worker.errors import LeaseLost, Rejected, Unreachable
from picochat_worker.lease import Lease

BEATS_PER_LEASE = 3
RETRIES_PER_BEAT = 4  # while the server is away
MAX_TIMEOUT_SECONDS = 10.0
logger = logging.getLogger(__name__)


class Heartbeat(threading.Thread):
    def __init__(self, channel: AttemptChannel, lease: Lease, step: Callable[[], int | None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._channel = channel
        self._lease = lease
        self._step = step
        self._closing = threading.Event()

    def close(self) -> None:
        self._closing.set()

    def run(self) -> None:
        pause = self._interval()
        while not self._closing.wait(pause) and not self._lease.lost:
            pause = self._interval() if self._beat() else self._interval() / RETRIES_PER_BEAT

    def _interval(self) -> float:
        return self._lease.lease_seconds / BEATS_PER_LEASE

    def _beat(self) -> bool:
        sent_at = self._lease.now()
        try:
            timeout = min(self._interval(), MAX_TIMEOUT_SECONDS)
            self._lease.renew(sent_at, self._channel.heartbeat(self._step(), timeout_seconds=timeout))
        except LeaseLost:
            self._lease.lose()
        except (Unreachable, Rejected) as error:
            # A refusal (a revoked key, say) does not renew either: the lease runs out and the stage stops.
            logger.warning("heartbeat failed: %s", error)
            return False
        return True
