"""Bring home what an attempt made: the last events and checkpoint, its outputs, and how it ended.

The stage is gone by now, so no deadline presses: while the server is away this just waits for it, since the
lease fences what it sends. It ends early where the lease is lost, or the worker was told to stop.
"""

import logging
import time
from dataclasses import asdict
from functools import partial
from typing import TypeVar

from picochat_contract.errors import Code
from picochat_contract.layout import Kind
from picochat_contract.manifest import Manifest, OutputFile
from picochat_contract.states import Cause

from picochat_worker.checkpoints import CheckpointUploader
from picochat_worker.control_plane import AttemptChannel, file_sha256
from picochat_worker.errors import Abandoned, BadManifest, LeaseLost, Rejected, StopReason, Unreachable
from picochat_worker.lease import Lease
from picochat_worker.outbox import Outbox
from picochat_worker.outcome import Outcome, fault
from picochat_worker.retry import Patience, until_answered
from picochat_worker.settings import WorkerSettings
from picochat_worker.stop_request import StopRequest
from picochat_worker.workspace import Workspace

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Delivery:
    def __init__(
        self,
        settings: WorkerSettings,
        channel: AttemptChannel,
        lease: Lease,
        stop: StopRequest,
        workspace: Workspace,
    ) -> None:
        self._channel = channel
        self._lease = lease
        self._stop = stop
        self._workspace = workspace
        self._tick_seconds = settings.tick_seconds
        self._patience_seconds = settings.upload_patience_seconds

    def await_threads(self, outbox: Outbox, checkpoints: CheckpointUploader) -> None:
        """Return when all events and the newest checkpoint are stored, or cannot be."""
        outbox.finish()
        patience = self._patience()
        while outbox.is_alive() or (checkpoints.is_alive() and not checkpoints.idle):
            self._check()
            if self._stop.killing or patience.exhausted(failing=outbox.failing or checkpoints.failing):
                logger.error("events or a checkpoint could not be stored")
                return
            time.sleep(self._tick_seconds)

    def report(self, outcome: Outcome) -> None:
        """Upload the outputs of a success, then finish the attempt."""
        manifest = None
        if outcome.outcome == "succeeded":
            outcome, manifest = self._store_outputs(outcome)
        try:
            self._finish(outcome, manifest)
        except Rejected as error:
            logger.error("the server refuses this end of the attempt: %s", error)
            if manifest is not None:
                # Said at once and with its reason; left alone, the lease would run out and the attempt be "lost".
                refused = fault(Cause.UPLOAD, error.code, error.detail, exit_code=outcome.exit_code)
                self._finish(refused, None)

    def _finish(self, outcome: Outcome, manifest: Manifest | None) -> None:
        self._answer(partial(self._channel.finish, **asdict(outcome), manifest=manifest))

    def _store_outputs(self, outcome: Outcome) -> tuple[Outcome, Manifest | None]:
        try:
            manifest = self._with_logs(self._workspace.manifest())
            self._upload(manifest)
        except BadManifest as error:
            return fault(Cause.CRASH, error.code, str(error), exit_code=outcome.exit_code), None
        except Rejected as error:
            return fault(Cause.UPLOAD, error.code, str(error), exit_code=outcome.exit_code), None
        except Unreachable as error:
            if self._stop.killing:
                return _interrupted(outcome), None
            message = f"outputs could not be stored: {error}"
            return fault(Cause.UPLOAD, Code.INTERNAL, message, exit_code=outcome.exit_code), None
        return outcome, manifest

    def _with_logs(self, manifest: Manifest) -> Manifest:
        """The manifest with the stage's log and events among its outputs."""
        named = {output.path for output in manifest.outputs}
        logs = tuple(self._log_output(path) for path in self._workspace.log_files() if path not in named)
        return manifest.model_copy(update={"outputs": (*manifest.outputs, *logs)})

    def _log_output(self, path: str) -> OutputFile:
        file = self._workspace.output(path)
        return OutputFile(path=path, sha256=file_sha256(file), size_bytes=file.stat().st_size, kind=Kind.LOG)

    def _upload(self, manifest: Manifest) -> None:
        files = {output.sha256: self._workspace.output(output.path) for output in manifest.outputs}
        missing = self._answer(partial(self._channel.missing, sorted(files)))
        for digest in sorted(missing):
            self._answer(partial(self._channel.upload, digest, files[digest], self._check))
        for digest, file in files.items():
            self._workspace.keep(digest, file)

    def _answer(self, call: partial[T]) -> T:
        patience = self._patience()
        return until_answered(
            call, check=self._check, give_up=lambda: self._stop.killing or patience.exhausted()
        )

    def _patience(self) -> Patience:
        return Patience(self._lease, self._patience_seconds)

    def _check(self) -> None:
        if self._lease.lost:
            raise LeaseLost("found out while reporting")
        if self._stop.draining and self._lease.now() > self._lease.kill_at:
            raise Abandoned("told to stop, and the server does not answer; the lease runs out by itself")


def _interrupted(done: Outcome) -> Outcome:
    """The stage had ended well, but this worker was told to leave before its outputs were stored."""
    return Outcome(
        outcome="interrupted", exit_code=done.exit_code, cause=Cause.INTERRUPTED, message=StopReason.DRAIN
    )
