"""The loop beside a running stage: follow its events, and end it when it has to end. Never does HTTP."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from picochat_contract.events import CheckpointFiles, EventType, StageEvent
from picochat_contract.manifest import StageError
from pydantic import ValidationError

from picochat_worker.checkpoints import CheckpointUploader
from picochat_worker.errors import LeaseLost, StopReason
from picochat_worker.follower import Follower
from picochat_worker.lease import Lease
from picochat_worker.outcome import Ending
from picochat_worker.process_group import ProcessGroup
from picochat_worker.stop_request import StopRequest, stop_reason
from picochat_worker.workspace import Workspace

logger = logging.getLogger(__name__)


class StageWatch:
    def __init__(
        self,
        group: ProcessGroup,
        workspace: Workspace,
        lease: Lease,
        stop: StopRequest,
        checkpoints: CheckpointUploader,
        *,
        saw_step: Callable[[int], None],
        stop_seconds: dict[StopReason, float],
        tick_seconds: float,
    ) -> None:
        """`stop_seconds`: from SIGTERM to SIGKILL, by reason; the lease's end may come before."""
        self._group = group
        self._workspace = workspace
        self._lease = lease
        self._stop = stop
        self._checkpoints = checkpoints
        self._saw_step = saw_step
        self._stop_seconds = stop_seconds
        self._tick_seconds = tick_seconds
        self._follower = Follower(workspace.events)
        self._reason: StopReason | None = None
        self._kill_at = float("inf")

    def run(self) -> Ending:
        """Return when the stage and all its processes are gone; raise LeaseLost once that is known."""
        while (exit_code := self._group.poll()) is None:
            self._follow()
            self._raise_if_lost()
            self._steer()
            time.sleep(self._tick_seconds)
        end_group(self._group)  # what the stage left behind
        while self._follow():
            pass
        self._raise_if_lost()
        return Ending(
            exit_code=exit_code,
            stopped_for=self._reason,
            error=_read_error(self._workspace.error),
            log_tail=self._workspace.log_tail(),
        )

    def _raise_if_lost(self) -> None:
        if self._lease.lost:
            end_group(self._group)
            raise LeaseLost("found out while the stage was running")

    def _steer(self) -> None:
        if self._lease.take_checkpoint_request():
            self._workspace.request_checkpoint()
        reason = stop_reason(self._lease, self._stop)
        now = self._lease.now()
        if reason and self._reason is None:
            logger.info("ending the stage: %s", reason)
            self._reason = reason
            self._kill_at = now + self._stop_seconds[reason]
            self._group.terminate()
        if self._reason and (now >= min(self._kill_at, self._lease.kill_at) or self._stop.killing):
            end_group(self._group)

    def _follow(self) -> bool:
        """Take in new events; False where there were none."""
        batch = self._follower.read()
        self._follower.advance(batch)
        for event in batch.events:
            step = event.data.get("step")
            if isinstance(step, int):
                self._saw_step(step)
            if event.type == EventType.CHECKPOINT:
                self._keep(event)
        return bool(batch.events)

    def _keep(self, event: StageEvent) -> None:
        try:
            self._checkpoints.offer(CheckpointFiles.model_validate(event.data))
        except ValidationError as error:
            logger.warning("event %d announces no usable checkpoint: %s", event.seq, error)


def end_group(group: ProcessGroup) -> None:
    """Kill whatever is left of the attempt, and say so where that fails."""
    for process in group.kill():
        logger.error("process %d of the attempt cannot be killed", process.pid)


def _read_error(path: Path) -> StageError | None:
    try:
        return StageError.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
