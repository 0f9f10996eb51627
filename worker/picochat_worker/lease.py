"""What a worker knows of its hold on an attempt. Counted from when a heartbeat was sent, so never too long."""

import time
from collections.abc import Callable

from picochat_contract.api import Claim, HeartbeatOut
from picochat_contract.states import DesiredState

Clock = Callable[[], float]
# Of the grace: when a stage is killed that did not stop by itself, so that the rest suffices to be gone.
STOP_SHARE = 0.7


class Lease:
    """Written by the heartbeat thread (and `lose` by any), read by all; every field is one assignment."""

    def __init__(self, claim: Claim, *, claimed_at: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._renewed_at = claimed_at
        self._lease_seconds = claim.lease_seconds
        self._grace_seconds = claim.grace_seconds
        self._lost = False
        self._desired = DesiredState.RUNNING
        self._checkpoint_wanted = False

    @property
    def lease_seconds(self) -> float:
        return self._lease_seconds

    @property
    def stop_seconds(self) -> float:
        """How long a stage may take from SIGTERM until it is killed."""
        return self._grace_seconds * STOP_SHARE

    @property
    def stop_at(self) -> float:
        """Without word from the server until here, the stage is told to stop."""
        return self._renewed_at + self._lease_seconds

    @property
    def kill_at(self) -> float:
        """The last moment to kill, so that nothing runs when another may take over."""
        return self.stop_at + self.stop_seconds

    @property
    def lost(self) -> bool:
        return self._lost

    @property
    def cancelled(self) -> bool:
        return self._desired == DesiredState.CANCELLED

    def now(self) -> float:
        return self._clock()

    def renew(self, sent_at: float, answer: HeartbeatOut) -> None:
        self._lease_seconds = answer.lease_seconds
        self._renewed_at = sent_at
        self._desired = answer.desired_state
        if answer.checkpoint_now:
            self._checkpoint_wanted = True

    def lose(self) -> None:
        self._lost = True

    def take_checkpoint_request(self) -> bool:
        """True once for each time that the server has asked for a checkpoint."""
        wanted, self._checkpoint_wanted = self._checkpoint_wanted, False
        return wanted
