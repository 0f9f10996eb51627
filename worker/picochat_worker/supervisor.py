"""One attempt from claim to finish: lay the files, run the stage, follow it, bring home what it made.

The loop beside the stage does no HTTP, so that it can always end the stage in time: heartbeats, events and
checkpoints have a thread each, which only set flags of the Lease. The stage is started from the thread that
calls `run`, and the kernel ends it with that thread.
"""

import logging
from dataclasses import asdict
from pathlib import Path

from picochat_contract.api import Claim
from picochat_contract.errors import ContractError
from picochat_contract.manifest import StageJob
from picochat_contract.states import Cause

from picochat_worker.checkpoints import CheckpointUploader
from picochat_worker.control_plane import AttemptChannel, ControlPlane
from picochat_worker.delivery import Delivery
from picochat_worker.digest_cache import DigestCache
from picochat_worker.errors import BadDownload, LeaseLost, Rejected, Stopped, StopReason, WorkerError
from picochat_worker.follower import Follower
from picochat_worker.heartbeat import Heartbeat
from picochat_worker.lease import Lease
from picochat_worker.outbox import Outbox
from picochat_worker.outcome import Ending, Outcome, fault, judge
from picochat_worker.process_group import ProcessGroup
from picochat_worker.retry import until_answered
from picochat_worker.settings import WorkerSettings, stage_environment
from picochat_worker.stop_request import StopRequest, stop_reason
from picochat_worker.watch import StageWatch, end_group
from picochat_worker.workspace import Workspace, stage_arguments

DOWNLOAD_TRIES = 3
JOIN_SECONDS = 2.0  # a thread in the middle of a request ends by itself when that returns
logger = logging.getLogger(__name__)


class Attempt:
    """Call `run` once, from a thread that lives as long as the stage may."""

    def __init__(
        self,
        settings: WorkerSettings,
        control_plane: ControlPlane,
        claim: Claim,
        *,
        claimed_at: float,
        stop: StopRequest,
    ) -> None:
        self._settings = settings
        self._claim = claim
        self._stop = stop
        self._step = claim.resume.step if claim.resume else None
        self._lease = Lease(claim, claimed_at=claimed_at)
        self._channel = AttemptChannel(control_plane, claim, part_bytes=settings.upload_part_bytes)
        self._log_ids = {"attempt": claim.attempt, "run": claim.run, "stage": claim.job.stage.value}

    def run(self) -> None:
        """Raises for nothing that an attempt may meet: all of it is reported, or the lease runs out."""
        heartbeat = Heartbeat(self._channel, self._lease, lambda: self._step)
        heartbeat.start()
        try:
            self._supervise()
        except LeaseLost as error:
            logger.warning("lease_lost: nothing more is sent; %s", error, extra=self._log_ids)
        except WorkerError as error:
            logger.error("attempt given up: %s", error, extra=self._log_ids)
        finally:
            heartbeat.close()
            heartbeat.join(JOIN_SECONDS)

    def _supervise(self) -> None:
        try:
            workspace = self._workspace()
        except (OSError, ContractError) as error:
            message = f"the worker cannot make a folder for the attempt: {error}"
            self._channel.finish(**asdict(fault(Cause.LOST, None, message)))
            return
        delivery = Delivery(self._settings, self._channel, self._lease, self._stop, workspace)
        try:
            outcome = self._prepare(workspace) or self._run_stage(workspace, delivery)
            logger.info("attempt %s: %s", outcome.outcome, outcome.message or "done", extra=self._log_ids)
            delivery.report(outcome)
        except OSError as error:
            # The disk is full, say: a fault of this machine, so another may do better.
            logger.exception("the worker failed", extra=self._log_ids)
            delivery.report(fault(Cause.LOST, None, f"the worker failed: {error}"))
        finally:
            workspace.remove()

    def _workspace(self) -> Workspace:
        home, store_dir = self._settings.home, self._settings.store_dir
        # Beside the server's own folder every input is a hard link already.
        cache = DigestCache(home, self._settings.cache_bytes) if store_dir is None else None
        return Workspace(home, self._claim, store_dir=store_dir, cache=cache)

    def _prepare(self, workspace: Workspace) -> Outcome | None:
        """Lay all files; the outcome where that was not possible, else None."""
        try:
            workspace.lay(self._job(), self._fetch)
        except Stopped as stopped:
            return judge(Ending(exit_code=None, stopped_for=stopped.reason, error=None, log_tail=""))
        except (Rejected, BadDownload, ContractError) as error:
            code = None if isinstance(error, BadDownload) else str(error.code)
            return fault(Cause.UPLOAD, code, f"an input could not be laid: {error}")
        return None

    def _job(self) -> StageJob:
        """The claimed job with what this worker adds: its device, and how many processes it can hold."""
        asked = self._claim.job.resources
        nproc = min(asked.nproc_per_node, self._settings.nproc or asked.nproc_per_node)
        device = self._settings.device if asked.device == "auto" else asked.device
        resources = asked.model_copy(update={"nproc_per_node": nproc, "device": device})
        ids = {"run_id": self._claim.run, "attempt_id": self._claim.attempt}
        return self._claim.job.model_copy(update={"resources": resources, **ids})

    def _fetch(self, digest: str, target: Path) -> None:
        for tries_left in reversed(range(DOWNLOAD_TRIES)):
            try:
                until_answered(
                    lambda: self._channel.download(digest, target, self._check_stop),
                    check=self._check_stop,
                    give_up=lambda: False,  # the end of the lease does
                )
                return
            except BadDownload as error:
                logger.warning("%s", error, extra=self._log_ids)
                if not tries_left:
                    raise

    def _check_stop(self) -> None:
        if self._lease.lost:
            raise LeaseLost("found out while laying files")
        if reason := stop_reason(self._lease, self._stop):
            raise Stopped(reason)

    def _run_stage(self, workspace: Workspace, delivery: Delivery) -> Outcome:
        outbox = Outbox(self._channel, self._lease, Follower(workspace.events))
        checkpoints = CheckpointUploader(
            self._channel, self._lease, run=workspace.run, snapshots=workspace.snapshots
        )
        group = self._start(workspace)
        outbox.start()
        checkpoints.start()
        try:
            ending = self._watch(group, workspace, checkpoints).run()
            delivery.await_threads(outbox, checkpoints)
        finally:
            end_group(group)
            for thread in (outbox, checkpoints):
                thread.close()
                thread.join(JOIN_SECONDS)
        return judge(ending)

    def _start(self, workspace: Workspace) -> ProcessGroup:
        arguments = stage_arguments(self._claim.job.stage, workspace)
        command = [*self._settings.stage_command, *arguments]
        logger.info("starting %s", " ".join(command), extra=self._log_ids)
        return ProcessGroup(
            command,
            environment=stage_environment(self._claim.attempt, self._settings),
            folder=workspace.run,
            log=workspace.log,
        )

    def _watch(
        self, group: ProcessGroup, workspace: Workspace, checkpoints: CheckpointUploader
    ) -> StageWatch:
        return StageWatch(
            group,
            workspace,
            self._lease,
            self._stop,
            checkpoints,
            saw_step=self._saw_step,
            stop_seconds={
                StopReason.CANCEL: self._claim.grace_seconds,
                StopReason.DRAIN: self._settings.drain_seconds,
                StopReason.LEASE_END: self._lease.stop_seconds,
            },
            tick_seconds=self._settings.tick_seconds,
        )

    def _saw_step(self, step: int) -> None:
        self._step = step
