"""Send a stage's events to the server. The buffer is the events file itself plus the offset of what was
stored: an outage only lets the offset lag, and sending twice is harmless, because events are numbered.
"""

import logging
import threading

from picochat_contract.events import StageEvent

from picochat_worker.control_plane import AttemptChannel
from picochat_worker.errors import LeaseLost, Rejected, Unreachable
from picochat_worker.follower import Batch, Follower
from picochat_worker.lease import Lease

PAUSE_SECONDS = 0.5  # between looks at the file: how live a page can be
RETRY_SECONDS = 1.0
MAX_BATCH = 1000
logger = logging.getLogger(__name__)


class Outbox(threading.Thread):
    """Ends by itself once `finish` was called and all is stored, or the lease is lost."""

    def __init__(self, channel: AttemptChannel, lease: Lease, follower: Follower) -> None:
        super().__init__(name="outbox", daemon=True)
        self._channel = channel
        self._lease = lease
        self._follower = follower
        self._finishing = threading.Event()
        self._closing = threading.Event()
        self.failing = False
        """True while the server does not take events."""

    def finish(self) -> None:
        """The file grows no more: send the rest, then end."""
        self._finishing.set()

    def close(self) -> None:
        """End without sending the rest."""
        self._closing.set()
        self._finishing.set()

    def run(self) -> None:
        while not self._lease.lost and not self._closing.is_set():
            last_look = self._finishing.is_set()
            batch = self._follower.read(MAX_BATCH)
            if batch.events:
                self._deliver(batch)
                continue
            self._follower.advance(batch)  # past lines that are no events
            if last_look:
                return
            self._finishing.wait(PAUSE_SECONDS)

    def _deliver(self, batch: Batch) -> None:
        try:
            self._post(batch.events)
        except Unreachable as error:
            logger.warning("events wait on disk: %s", error)
            self.failing = True
            self._closing.wait(RETRY_SECONDS)
        except LeaseLost:
            self._lease.lose()
        else:
            self._follower.advance(batch)
            self.failing = False

    def _post(self, events: list[StageEvent]) -> None:
        """One bad event must not hold up the others: a refused batch is sent singly, less what is refused."""
        try:
            self._channel.events(events)
        except Rejected as refusal:
            if len(events) == 1:
                logger.warning("event %d left out: %s", events[0].seq, refusal)
                return
            for event in events:
                self._post([event])
