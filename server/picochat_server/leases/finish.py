"""The end of an attempt: store its outputs and go on with the run, or try again, or give up and say why."""

from picochat_contract.api import FinishIn
from picochat_contract.errors import Code
from picochat_contract.exit_codes import StageExit
from picochat_contract.manifest import Manifest
from picochat_contract.stages import StageName
from picochat_contract.states import (
    RETRIED_CAUSES,
    AttemptState,
    Cause,
    DesiredState,
    StageState,
)
from sqlalchemy.orm import Session, sessionmaker

from picochat_server.artifacts.service import link_outputs
from picochat_server.artifacts.store import LocalStore
from picochat_server.db import transaction
from picochat_server.gates import service as gates
from picochat_server.leases import repository
from picochat_server.leases.reports import is_number, storable_text
from picochat_server.leases.service import LIVE_ATTEMPT, fence, lease_lost, lock_run_of
from picochat_server.models import Attempt, Run, Stage
from picochat_server.problems import ApiProblem
from picochat_server.runs import chain
from picochat_server.runs.transitions import move_attempt, move_stage
from picochat_server.settings import Settings

MAX_MESSAGE = 4000
MAX_GIVEN_BACK = 20  # attempts of a stage that may end before they start without counting
FIXES = {
    Cause.BAD_INPUT: "correct the data or the settings that it names and submit again",
    Cause.CRASH: "read the stage's log.txt; a fault that repeats is ours, please report it",
    Cause.SIGNAL: "it was killed from outside, mostly for memory: use a smaller device_batch_size or a larger machine",
    Cause.LOST: "its workers died or lost the server: look at their logs, then submit again",
    Cause.INTERRUPTED: "its workers were stopped each time: submit again where one may run to the end",
    Cause.UPLOAD: "its outputs could not be stored: look at the worker's log and the server's disk, then submit again",
    Cause.CANCELLED: "submit again to start over",
}


def prepare(
    sessions: sessionmaker[Session], store: LocalStore, project_id: str, attempt_id: str, body: FinishIn
) -> None:
    """What takes long and needs no lock, before the transaction of `finish`: hashing what a gate rests on."""
    if body.outcome != "succeeded" or body.manifest is None or body.manifest.stage is not StageName.GATE:
        return
    with transaction(sessions) as session:
        attempt = repository.attempt_by_id(session, attempt_id)
    if attempt is not None:
        gates.hash_ahead(sessions, store, project_id, attempt.run_id)


def finish(session: Session, store: LocalStore, settings: Settings, attempt_id: str, body: FinishIn) -> None:
    """End an attempt as its worker reports it. The same report again changes nothing."""
    run = lock_run_of(session, attempt_id)
    if _is_repeat(session, attempt_id, body):
        return
    attempt, stage = fence(session, attempt_id, body.lease_token, body.epoch)
    if body.outcome == "succeeded":
        _succeed(session, store, settings, run, stage, attempt, body)
        return
    cause = _cause(stage, body)
    end_attempt(
        session,
        store,
        settings,
        run,
        stage,
        attempt,
        _end_state(cause),
        cause=cause,
        message=_message(body),
        exit_code=body.exit_code,
    )


def end_attempt(
    session: Session,
    store: LocalStore,
    settings: Settings,
    run: Run,
    stage: Stage,
    attempt: Attempt,
    state: AttemptState,
    *,
    cause: Cause,
    message: str | None,
    exit_code: int | None = None,
) -> None:
    """End an attempt that did not succeed, then queue its stage again or end it, by cause."""
    move_attempt(session, run, attempt, stage.name, state, cause=cause, message=message, exit_code=exit_code)
    if cause is Cause.INTERRUPTED and exit_code is None:
        _give_back(stage)
    if stage.desired_state == DesiredState.CANCELLED:
        move_stage(session, run, stage, StageState.CANCELLED, cause=Cause.CANCELLED)
    elif cause in RETRIED_CAUSES and stage.num_attempts < stage.max_attempts:
        chain.queue(session, run, stage, cause=cause, message=message)
    else:
        move_stage(
            session, run, stage, StageState.FAILED, cause=cause, message=_why_failed(stage, cause, message)
        )
        chain.stop_others(session, run, failed=stage)
    chain.advance(session, store, settings, run)
    session.flush()
    # Last: a heartbeat locks the stage and then its worker, and may come at this very moment.
    repository.touch_worker(session, attempt.id, ended=True)


def _give_back(stage: Stage) -> None:
    """An attempt that was interrupted before its stage process started does not count, a few times.

    `epoch` counts every claim, so what lies between the two was given back.
    """
    if stage.epoch - stage.num_attempts < MAX_GIVEN_BACK:
        stage.num_attempts -= 1


def _succeed(
    session: Session,
    store: LocalStore,
    settings: Settings,
    run: Run,
    stage: Stage,
    attempt: Attempt,
    body: FinishIn,
) -> None:
    manifest = _manifest_of(stage, body)
    link_outputs(session, stage, attempt.epoch, manifest.outputs)
    # What really ran is what may be reused: a worker of another version has another fingerprint.
    stage.fingerprint = manifest.fingerprint
    final = {storable_text(name): value for name, value in manifest.metrics.items() if is_number(value)}
    stage.metrics = {**stage.metrics, **final}
    session.flush()
    move_attempt(session, run, attempt, stage.name, AttemptState.SUCCEEDED, exit_code=body.exit_code)
    move_stage(session, run, stage, StageState.SUCCEEDED)
    chain.stage_done(session, store, settings, run, stage)
    chain.advance(session, store, settings, run)
    session.flush()
    repository.touch_worker(session, attempt.id, ended=True)  # last, as in end_attempt


def _manifest_of(stage: Stage, body: FinishIn) -> Manifest:
    manifest = body.manifest
    if manifest is None or manifest.stage != stage.name:
        got = f"one of stage {manifest.stage!r}" if manifest else "none"
        raise ApiProblem(
            422,
            Code.INVALID_REQUEST,
            f"a succeeded attempt of stage {stage.name!r} needs that stage's manifest; got {got}",
            param="manifest",
        )
    return manifest


def _is_repeat(session: Session, attempt_id: str, body: FinishIn) -> bool:
    """True if this attempt has ended with this very outcome, under this token, and nobody took over since."""
    attempt = repository.attempt_by_id(session, attempt_id)
    stage = repository.stage_by_id(session, attempt.stage_id) if attempt else None
    if attempt is None or stage is None:
        return False
    state = AttemptState(attempt.state)
    if state in LIVE_ATTEMPT or state is AttemptState.LOST:
        return False
    if (stage.lease_token, stage.epoch) != (body.lease_token, body.epoch) or attempt.epoch != stage.epoch:
        return False
    expected = AttemptState.SUCCEEDED if body.outcome == "succeeded" else _end_state(_cause(stage, body))
    if state is not expected:
        raise lease_lost(attempt_id, f"it has already ended as {state.value}")
    return True


def _cause(stage: Stage, body: FinishIn) -> Cause:
    """The worker's word, else what the exit code says. Nobody but the server knows of a wish to cancel."""
    if body.outcome == "cancelled" and stage.desired_state == DesiredState.CANCELLED:
        return Cause.CANCELLED
    if body.outcome in ("interrupted", "cancelled"):
        return Cause.INTERRUPTED
    if body.cause is not None:
        return body.cause
    if body.exit_code == StageExit.BAD_INPUT:
        return Cause.BAD_INPUT
    if body.exit_code == StageExit.INTERRUPTED:
        return Cause.INTERRUPTED
    return Cause.SIGNAL if body.exit_code is not None and body.exit_code < 0 else Cause.CRASH


def _end_state(cause: Cause) -> AttemptState:
    if cause is Cause.CANCELLED:
        return AttemptState.CANCELLED
    return AttemptState.INTERRUPTED if cause is Cause.INTERRUPTED else AttemptState.FAILED


def _message(body: FinishIn) -> str | None:
    text = ": ".join(part for part in (body.code, body.message) if part)
    return storable_text(text)[:MAX_MESSAGE] or None


def _why_failed(stage: Stage, cause: Cause, message: str | None) -> str:
    tries = f"attempt {stage.num_attempts} of {stage.max_attempts}"
    what = f": {message.rstrip('.')}" if message else ""
    return f"stage {stage.name} failed ({cause.value}, {tries}){what}; {FIXES[cause]}"
