"""Bring resume checkpoints to the server, the newest first, from a thread of its own.

A stage may replace a checkpoint at any moment, so its files are hard-linked the moment it is announced: what
waits for its upload stays one consistent version at no cost in bytes.
"""

import logging
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from picochat_contract.errors import Code, ContractError
from picochat_contract.events import CheckpointFiles
from picochat_contract.layout import check_artifact_path

from picochat_worker.control_plane import AttemptChannel, file_sha256
from picochat_worker.errors import LeaseLost, Rejected, Unreachable
from picochat_worker.lease import Lease

RETRY_SECONDS = 1.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    folder: Path
    checkpoint: CheckpointFiles


class CheckpointUploader(threading.Thread):
    """Holds at most one waiting snapshot: a newer one takes the place of an older one."""

    def __init__(self, channel: AttemptChannel, lease: Lease, *, run: Path, snapshots: Path) -> None:
        super().__init__(name="checkpoints", daemon=True)
        self._channel = channel
        self._lease = lease
        self._run = run
        self._snapshots = snapshots
        self._condition = threading.Condition()
        self._waiting: Snapshot | None = None
        self._busy = False
        self._closing = False
        self._count = 0
        self.failing = False
        """True while the server does not take a checkpoint."""

    @property
    def idle(self) -> bool:
        with self._condition:
            return self._waiting is None and not self._busy

    def offer(self, checkpoint: CheckpointFiles) -> None:
        """Keep this checkpoint for upload; call it at once when the stage announces one."""
        self._count += 1
        folder = self._snapshots / str(self._count)
        try:
            _link_files(checkpoint, self._run, folder)
        except (OSError, ContractError) as error:
            # A newer checkpoint has taken its place already, and will be announced in turn.
            logger.warning("checkpoint of step %d cannot be kept: %s", checkpoint.step, error)
            shutil.rmtree(folder, ignore_errors=True)
            return
        with self._condition:
            replaced, self._waiting = self._waiting, Snapshot(folder=folder, checkpoint=checkpoint)
            self._condition.notify()
        if replaced:
            shutil.rmtree(replaced.folder, ignore_errors=True)

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify()

    def run(self) -> None:
        while snapshot := self._next():
            if not self._try(snapshot):
                with self._condition:
                    self._busy = False
                    if self._waiting is None and not self._closing:
                        self._waiting = snapshot
                        self._condition.wait(RETRY_SECONDS)
                        continue
            shutil.rmtree(snapshot.folder, ignore_errors=True)
            with self._condition:
                self._busy = False

    def _next(self) -> Snapshot | None:
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._closing)
            if self._closing or self._lease.lost:
                return None
            snapshot, self._waiting = self._waiting, None
            self._busy = True
            return snapshot

    def _try(self, snapshot: Snapshot) -> bool:
        """Upload and announce; False where a later try may succeed."""
        try:
            self._upload(snapshot)
            self._channel.checkpoint(snapshot.checkpoint)
        except Unreachable as error:
            logger.warning("checkpoint of step %d waits: %s", snapshot.checkpoint.step, error)
            self.failing = True
            return False
        except LeaseLost:
            self._lease.lose()
        except (Rejected, OSError) as error:
            logger.warning("checkpoint of step %d dropped: %s", snapshot.checkpoint.step, error)
        self.failing = False
        return True

    def _upload(self, snapshot: Snapshot) -> None:
        files = {file.sha256: file.path for file in snapshot.checkpoint.files}
        for digest in sorted(self._channel.missing(list(files))):
            file = snapshot.folder / files[digest]
            got = file_sha256(file)
            if got != digest:
                raise OSError(f"{files[digest]} has sha256 {got}, announced was {digest}")
            self._channel.upload(digest, file, self._check)

    def _check(self) -> None:
        if self._lease.lost:
            raise LeaseLost("found out while uploading a checkpoint")
        if self._closing:
            raise Unreachable("the attempt is over")


def _link_files(checkpoint: CheckpointFiles, run: Path, folder: Path) -> None:
    for file in checkpoint.files:
        target = folder / check_artifact_path(file.path)
        source = run / file.path
        if source.is_symlink() or not source.resolve().is_relative_to(run.resolve()):
            raise ContractError(
                Code.BAD_ARTIFACT_PATH, f"checkpoint file {file.path} lies outside the run folder"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
