"""Claim, heartbeat and the fence. The database owns a stage; a worker holds it for the length of a lease.

Every write of a worker must show the token and the epoch of the newest claim. After a take-over nothing of an
older epoch is accepted: 409 `lease_lost`, and the worker ends its processes.
"""

import secrets
from datetime import UTC, datetime

from picochat_contract.api import (
    ArtifactOut,
    Claim,
    ClaimIn,
    HeartbeatIn,
    HeartbeatOut,
    Page,
    ResumePoint,
    WorkerOut,
)
from picochat_contract.data_configs import ArtifactSource, DatasetConfig
from picochat_contract.errors import Code
from picochat_contract.ids import new_id
from picochat_contract.layout import kind_of
from picochat_contract.manifest import StageJob
from picochat_contract.spec import RunSpec, validated
from picochat_contract.stages import StageName
from picochat_contract.states import (
    STAGE_TRANSITIONS,
    AttemptState,
    Cause,
    DesiredState,
    StageState,
    move,
)
from sqlalchemy.orm import Session

from picochat_server.auth.principal import Principal
from picochat_server.leases import repository
from picochat_server.models import Attempt, Run, Stage, StageArtifact
from picochat_server.problems import ApiProblem
from picochat_server.runs import chain
from picochat_server.runs import repository as runs
from picochat_server.runs.transitions import move_attempt, move_stage, note_attempt, note_stage_move
from picochat_server.settings import Settings

LIVE_ATTEMPT = frozenset({AttemptState.RUNNING, AttemptState.UNREACHABLE})
TOKEN_BYTES = 32


# --- claim ---


def claim(
    session: Session, settings: Settings, principal: Principal, body: ClaimIn, *, take_over: bool
) -> Claim | None:
    """Give the oldest claimable stage of the project to this worker; None where there is nothing.

    `take_over=False` leaves expired leases alone: just after a start the server gives workers time to come back.
    """
    condition = repository.claimable(settings.grace_seconds, take_over=take_over)
    for run_id, stage_id in repository.candidates(session, principal.project_id, body.stage, condition):
        run = runs.lock_run(session, run_id)
        stage = repository.stage_by_id(session, stage_id)
        assert run is not None, "runs are never deleted"
        assert stage is not None, "neither are stages"
        old_state, old_epoch = StageState(stage.state), stage.epoch
        token = secrets.token_hex(TOKEN_BYTES)
        if repository.take(session, stage_id, token, settings.lease_seconds, condition) is None:
            continue  # a rival was faster
        session.refresh(stage)
        attempt = _begin_attempt(session, run, stage, old_state, old_epoch, body.worker)
        repository.see_worker(session, principal.project_id, body, attempt.id)
        return _claim_out(session, settings, run, stage, attempt, token)
    repository.see_worker(session, principal.project_id, body, None)
    return None


def _begin_attempt(
    session: Session, run: Run, stage: Stage, old_state: StageState, old_epoch: int, worker: str
) -> Attempt:
    chain.mark_running(session, run)
    if old_state is not StageState.QUEUED:
        _lose(session, run, stage, old_state, old_epoch)
    move(STAGE_TRANSITIONS, StageState.QUEUED, StageState.RUNNING)
    note_stage_move(session, run, stage, StageState.QUEUED, StageState.RUNNING)
    stage.started_at = stage.started_at or datetime.now(UTC)
    attempt = Attempt(
        id=new_id("attempt"),
        stage_id=stage.id,
        run_id=run.id,
        epoch=stage.epoch,
        state=AttemptState.RUNNING.value,
        worker=worker,
        last_client_seq=0,
        started_at=datetime.now(UTC),
    )
    session.add(attempt)
    note_attempt(session, run, attempt, stage.name, None, AttemptState.RUNNING)
    session.flush()
    return attempt


def _lose(session: Session, run: Run, stage: Stage, old_state: StageState, old_epoch: int) -> None:
    """The take-over's other half: the attempt before is lost, in the same transaction."""
    old = runs.attempt_at(session, stage.id, old_epoch)
    assert old is not None, "a running stage has an attempt"
    message = f"no heartbeat from worker {old.worker} until lease and grace were over; another took the stage"
    move_attempt(session, run, old, stage.name, AttemptState.LOST, cause=Cause.LOST, message=message)
    repository.touch_worker(session, old.id, ended=True)
    move(STAGE_TRANSITIONS, old_state, StageState.QUEUED)
    note_stage_move(
        session, run, stage, old_state, StageState.QUEUED, epoch=old_epoch, cause=Cause.LOST, message=message
    )


def _claim_out(
    session: Session, settings: Settings, run: Run, stage: Stage, attempt: Attempt, token: str
) -> Claim:
    inputs = [_input(output, writer) for output, writer in chain.inputs_of(session, run.id, stage)]
    job = StageJob(
        stage=StageName(stage.name),
        config=stage.config,
        resources=validated(RunSpec, run.spec).resources,
        fingerprint=stage.fingerprint,
        run_id=run.id,
        attempt_id=attempt.id,
        inputs={file.path: file.sha256 for file in inputs},
    )
    return Claim(
        attempt=attempt.id,
        run=run.id,
        run_name=run.name,
        stage=stage.id,
        lease_token=token,
        epoch=stage.epoch,
        lease_seconds=settings.lease_seconds,
        grace_seconds=settings.grace_seconds,
        job=job,
        inputs=inputs,
        sources=_sources(stage),
        resume=_resume_point(stage),
    )


def _input(output: StageArtifact, writer: str) -> ArtifactOut:
    return ArtifactOut.model_validate(
        {
            "path": output.path,
            "sha256": output.digest,
            "size_bytes": output.size_bytes,
            "kind": output.kind,
            "stage": writer,
            "created_at": output.created_at,
        }
    )


def _sources(stage: Stage) -> list[str]:
    """Digests of the uploaded files that a dataset stage reads, each once."""
    if stage.name != StageName.DATASET:
        return []
    config = validated(DatasetConfig, stage.config)
    named = [file.digest for file in config.references if isinstance(file, ArtifactSource)]
    return list(dict.fromkeys(named))


def _resume_point(stage: Stage) -> ResumePoint | None:
    if stage.resume is None:
        return None
    now = datetime.now(UTC)
    files = [
        ArtifactOut(
            path=file["path"],
            sha256=file["sha256"],
            size_bytes=file["size_bytes"],
            kind=kind_of(file["path"]),
            stage=StageName(stage.name),
            created_at=now,
        )
        for file in stage.resume["files"]
    ]
    return ResumePoint(step=stage.resume["step"], files=files)


# --- heartbeat and fence ---


def heartbeat(session: Session, settings: Settings, attempt_id: str, body: HeartbeatIn) -> HeartbeatOut:
    """Extend the lease and say what is wanted. A late worker that was not replaced is taken back."""
    lease = settings.lease_seconds
    beat = repository.beat(session, attempt_id, body.lease_token, body.epoch, lease, body.step)
    if beat is None:
        run, stage, attempt = locked_fence(session, attempt_id, body.lease_token, body.epoch)
        _revive(session, run, stage, attempt)
        session.flush()
        beat = repository.beat(session, attempt_id, body.lease_token, body.epoch, lease, body.step)
        if beat is None:
            raise lease_lost(attempt_id)
    repository.touch_worker(session, attempt_id)
    return HeartbeatOut(
        lease_seconds=lease,
        desired_state=DesiredState(beat.desired_state),
        checkpoint_now=beat.checkpoint_now,
    )


def fence(
    session: Session, attempt_id: str, lease_token: str, epoch: int | None = None
) -> tuple[Attempt, Stage]:
    """The attempt and its stage if the attempt holds it now; 409 `lease_lost` otherwise.

    Locks nothing: a caller that must exclude a take-over until it commits locks the run or the stage first.
    """
    attempt = repository.attempt_by_id(session, attempt_id)
    stage = repository.stage_by_id(session, attempt.stage_id) if attempt else None
    if attempt is None or stage is None:
        raise lease_lost(attempt_id)
    is_holder = (
        secrets.compare_digest((stage.lease_token or "").encode(), lease_token.encode())
        and attempt.epoch == stage.epoch
        and epoch in (None, stage.epoch)
        and AttemptState(attempt.state) in LIVE_ATTEMPT
    )
    if not is_holder:
        raise lease_lost(attempt_id)
    return attempt, stage


def locked_fence(
    session: Session, attempt_id: str, lease_token: str, epoch: int
) -> tuple[Run, Stage, Attempt]:
    """The same with the run's row locked, so that nobody takes the stage over before the commit."""
    run = lock_run_of(session, attempt_id)
    attempt, stage = fence(session, attempt_id, lease_token, epoch)
    return run, stage, attempt


def lock_run_of(session: Session, attempt_id: str) -> Run:
    """Lock the run that an attempt belongs to; 409 `lease_lost` where there is no such attempt."""
    attempt = repository.attempt_by_id(session, attempt_id)
    run = runs.lock_run(session, attempt.run_id) if attempt else None
    if run is None:
        raise lease_lost(attempt_id)
    return run


def lease_lost(
    attempt_id: str, why: str = "its lease was taken over, has ended, or was never its"
) -> ApiProblem:
    return ApiProblem(
        409,
        Code.LEASE_LOST,
        f"attempt {attempt_id[:40]} does not hold its stage: {why}; end its processes and claim again",
    )


def _revive(session: Session, run: Run, stage: Stage, attempt: Attempt) -> None:
    if stage.state == StageState.UNREACHABLE:
        move_stage(session, run, stage, StageState.RUNNING)
    if attempt.state == AttemptState.UNREACHABLE:
        move_attempt(session, run, attempt, stage.name, AttemptState.RUNNING)


# --- workers ---


def list_workers(session: Session, project_id: str, after: str | None, limit: int) -> Page[WorkerOut]:
    rows = repository.workers_after(session, project_id, after, limit + 1)
    shown = rows[:limit]
    return Page(
        data=[
            WorkerOut(
                name=worker.name,
                host=worker.host,
                device=worker.device,
                last_seen_at=worker.last_seen_at,
                attempt=worker.attempt_id,
            )
            for worker in shown
        ],
        has_more=len(rows) > limit,
        next=shown[-1].name if len(rows) > limit else None,
    )
