"""From one stage to the next: queue what can start, reuse what is finished, end the run when nothing is left.

Every function here needs the run's row locked by its caller.
"""

from datetime import UTC, datetime

from picochat_contract.events import EventType
from picochat_contract.gate import Verdict
from picochat_contract.manifest import fingerprint
from picochat_contract.preflight import PreflightReport, PreflightStatus
from picochat_contract.spec import RunSpec, validated
from picochat_contract.stages import STAGES, StageName, reads
from picochat_contract.states import STAGE_FINAL, Cause, DesiredState, RunState, StageState
from sqlalchemy.orm import Session

from picochat_server.artifacts.store import LocalStore
from picochat_server.gates import service as gates
from picochat_server.models import Run, Stage, StageArtifact
from picochat_server.preflight import service as preflight
from picochat_server.runs import repository
from picochat_server.runs.events import append
from picochat_server.runs.transitions import move_run, move_stage
from picochat_server.settings import Settings

LIVE = frozenset({StageState.RUNNING, StageState.UNREACHABLE})
MAX_NAMED = 3  # blocking checks in the run's message; the report has all of them


def advance(session: Session, store: LocalStore, settings: Settings, run: Run) -> None:
    """Start every stage whose needs are done; a chain of reusable stages is followed to its end."""
    while stage := _next_ready(repository.stages_of(session, run.id)):
        _start(session, store, settings, run, stage)
    settle(session, run)


def stage_done(session: Session, store: LocalStore, settings: Settings, run: Run, stage: Stage) -> None:
    """What a stage's success, or its reuse, means for the run."""
    run.metrics = _with_metrics_of(stage, run.metrics)
    session.flush()
    if stage.name == StageName.GATE:
        gates.decide_run(session, store, settings, run)
    elif stage.name == StageName.PREFLIGHT and not _was_cut_short(session, run):
        report = preflight.judge_run(session, store, run, stage)
        if report.status is PreflightStatus.BLOCKED:
            _block(session, run, report)


def stop_others(session: Session, run: Run, *, failed: Stage) -> None:
    """After a failure: pending stages are skipped, queued ones withdrawn, running ones asked to stop."""
    for stage in repository.stages_of(session, run.id):
        state = StageState(stage.state)
        if state is StageState.PENDING:
            move_stage(session, run, stage, StageState.SKIPPED, message=f"stage {failed.name} failed")
        elif state is StageState.QUEUED:
            move_stage(session, run, stage, StageState.CANCELLED, message=f"stage {failed.name} failed")
        elif state in LIVE:
            stage.desired_state = DesiredState.CANCELLED.value


def cancel_stages(session: Session, run: Run) -> None:
    """Somebody cancelled: what waits ends at once, what runs is asked to stop."""
    for stage in repository.stages_of(session, run.id):
        state = StageState(stage.state)
        if state in (StageState.PENDING, StageState.QUEUED):
            move_stage(session, run, stage, StageState.CANCELLED)
        if state not in STAGE_FINAL:
            stage.desired_state = DesiredState.CANCELLED.value


def settle(session: Session, run: Run) -> None:
    """End the run if all its stages have ended."""
    stages = repository.stages_of(session, run.id)
    states = {StageState(stage.state) for stage in stages}
    if not states <= STAGE_FINAL or RunState(run.state) not in (RunState.QUEUED, RunState.RUNNING):
        return
    if StageState.FAILED in states:
        failed = next(stage for stage in stages if stage.state == StageState.FAILED)
        move_run(session, run, RunState.FAILED, message=failed.message)
    elif StageState.CANCELLED in states:
        move_run(session, run, RunState.CANCELLED)
    else:
        move_run(session, run, RunState.SUCCEEDED)


def mark_running(session: Session, run: Run) -> None:
    """The run's first claim or first reuse."""
    if run.state == RunState.QUEUED:
        move_run(session, run, RunState.RUNNING)


def inputs_of(session: Session, run_id: str, stage: Stage) -> list[tuple[StageArtifact, str]]:
    """The files that `stage` reads, each with the name of the stage that wrote it, by path."""
    writers = {
        other.id: other.name for other in repository.stages_of(session, run_id) if other.name in stage.needs
    }
    outputs = repository.outputs_of_stages(session, list(writers))
    name = StageName(stage.name)
    return [(output, writers[output.stage_id]) for output in outputs if reads(name, output.path)]


def queue(
    session: Session, run: Run, stage: Stage, *, cause: Cause | None = None, message: str | None = None
) -> None:
    """Put a stage into the queue, with a hint for the workers in the same transaction."""
    now = repository.clock(session)
    move_stage(session, run, stage, StageState.QUEUED, cause=cause, message=message, queued_at=now)
    repository.add_hint(session, stage.id)


def _block(session: Session, run: Run, report: PreflightReport) -> None:
    """Preflight said no: whatever would come after it is skipped, and the run ends here.

    Every other stage waits for preflight or was waited for by it, so nothing is queued or running now.
    """
    ids = [check.id for check in report.blocking]
    run.verdict = Verdict.BLOCKED.value
    data = {"verdict": run.verdict, "blocking": ids}
    append(session, run, EventType.GATE, StageName.PREFLIGHT, None, data)
    for stage in repository.stages_of(session, run.id):
        if stage.state == StageState.PENDING:
            message = f"preflight blocked the run: {', '.join(ids)}"
            move_stage(session, run, stage, StageState.SKIPPED, message=message)
    move_run(session, run, RunState.BLOCKED, message=_why_blocked(report))


def _was_cut_short(session: Session, run: Run) -> bool:
    """A cancel came while there still was something to cancel: the run ends as cancelled, not by a judgement."""
    return any(stage.state == StageState.CANCELLED for stage in repository.stages_of(session, run.id))


def _why_blocked(report: PreflightReport) -> str:
    named = [
        f"{check.id}: {check.message}" + (f" (fix: {check.fix})" if check.fix else "")
        for check in report.blocking[:MAX_NAMED]
    ]
    more = len(report.blocking) - len(named)
    return "preflight blocked the run: " + "; ".join([*named, *([f"and {more} more"] if more else [])])


def _next_ready(stages: list[Stage]) -> Stage | None:
    done = {stage.name for stage in stages if repository.is_done(stage)}
    return next(
        (s for s in stages if s.state == StageState.PENDING and done.issuperset(s.needs)),
        None,
    )


def _start(session: Session, store: LocalStore, settings: Settings, run: Run, stage: Stage) -> None:
    name = StageName(stage.name)
    config = validated(STAGES[name].config, stage.config)
    digests = {file.path: file.digest for file, _ in inputs_of(session, run.id, stage)}
    resources = validated(RunSpec, run.spec).resources
    stage.fingerprint = fingerprint(name, config, digests, resources)
    for twin in repository.finished_twins(session, run.project_id, stage.fingerprint):
        if name is StageName.PREFLIGHT and not preflight.is_reusable(session, twin):
            continue
        outputs = repository.outputs_of_stages(session, [twin.id])
        if all(store.has(output.digest) for output in outputs):
            mark_running(session, run)
            _reuse(session, run, stage, twin, outputs)
            stage_done(session, store, settings, run, stage)
            return
    queue(session, run, stage)


def _reuse(session: Session, run: Run, stage: Stage, twin: Stage, outputs: list[StageArtifact]) -> None:
    """Link the outputs of an equal stage. Chains are cut: the source is always a stage that really ran."""
    repository.copy_outputs(session, outputs, stage)
    move_stage(
        session,
        run,
        stage,
        StageState.CACHED,
        cached_from=twin.cached_from or twin.id,
        metrics=twin.metrics,
        step=twin.step,
        total_steps=twin.total_steps,
        started_at=datetime.now(UTC),
    )


def _with_metrics_of(stage: Stage, metrics: dict[str, float]) -> dict[str, float]:
    """Add a stage's final numbers; a name that is taken gets the stage's name in front."""
    merged = dict(metrics)
    for name, value in stage.metrics.items():
        merged[f"{stage.name}_{name}" if name in merged else name] = value
    return merged
