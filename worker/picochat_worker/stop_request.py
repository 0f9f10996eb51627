"""How often this worker was told to stop, and why a stage has to end."""

import signal
from types import FrameType

from picochat_worker.errors import StopReason
from picochat_worker.lease import Lease


class StopRequest:
    """A counter, because signal handlers must not touch a lock."""

    def __init__(self) -> None:
        self._count = 0

    def request(self) -> None:
        self._count += 1

    @property
    def draining(self) -> bool:
        """Finish nothing new; interrupt the running stage with a checkpoint."""
        return self._count > 0

    @property
    def killing(self) -> bool:
        """Told twice: kill the running stage and leave."""
        return self._count > 1

    def listen(self) -> None:
        """Take SIGTERM and SIGINT; only in the main thread."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.request()


def stop_reason(lease: Lease, stop: StopRequest) -> StopReason | None:
    if lease.cancelled:
        return StopReason.CANCEL
    if stop.draining:
        return StopReason.DRAIN
    return StopReason.LEASE_END if lease.now() >= lease.stop_at else None
