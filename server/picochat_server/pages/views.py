"""Rows to page contexts: reads through the domain services, decides nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

import yaml
from picochat_contract import layout
from picochat_contract.api import MetricSeries, RunOut, StageOut
from picochat_contract.errors import Code
from picochat_contract.gate import GateReport
from picochat_contract.stages import StageName
from picochat_contract.states import STAGE_DONE, RunState
from sqlalchemy.orm import Session

from picochat_server.artifacts.store import LocalStore
from picochat_server.auth.principal import Principal
from picochat_server.gates import service as gates
from picochat_server.models import Event
from picochat_server.pages import curves, formats, honesty, repository
from picochat_server.pages.context import (
    Attempt,
    Before,
    Command,
    Figure,
    FilterLink,
    Gate,
    LogLine,
    RunPage,
    RunsPage,
    Sample,
)
from picochat_server.pages.corpus import CorpusReport
from picochat_server.pages.honesty import Head, HonestyReport
from picochat_server.pages.preflight_view import judged
from picochat_server.pages.stored import Files, files_of, read_report
from picochat_server.pages.viewer import viewer_of
from picochat_server.problems import ApiProblem
from picochat_server.runs import service as runs
from picochat_server.settings import Settings

PAGE_SIZE = 50
LOG_LINES = 200
MAX_SAMPLES = 4  # per stage
SAMPLED_STAGES = (StageName.BASE, StageName.SFT)
CHARTS = (
    (StageName.BASE, "loss", "Base loss", "nats per token"),
    (StageName.BASE, "bpb", "Base validation BPB", "bits per byte"),
    (StageName.SFT, "loss", "SFT loss", "nats per token"),
)
FIGURES = (
    (StageName.BASE, "val_bpb", "Validation BPB", "base model, held-out text, lower is better"),
    (StageName.BASE, "unigram_bpb", "Unigram baseline", "BPB of token counts alone on the same text"),
    (StageName.EVAL, "eval_pass_rate", "Eval pass rate", "all eval items"),
    (StageName.BASE, "tokens_per_second", "Tokens per second", "base training, newest value"),
)
BASELINE = "unigram_bpb"  # one number, drawn as a level across the chart


def runs_page(
    session: Session, principal: Principal, server_url: str, after: str | None, state: RunState | None
) -> RunsPage:
    found = runs.list_runs(session, principal.project_id, after, PAGE_SIZE, state)
    return RunsPage(
        viewer=viewer_of(session, principal),
        filters=(
            FilterLink(label="All", href="/", is_current=state is None),
            *(
                FilterLink(label=one.value.capitalize(), href=f"/?state={one}", is_current=one is state)
                for one in RunState
            ),
        ),
        runs=tuple(found.data),
        state=state,
        is_first_page=after is None,
        first_href=_list_address(state, None),
        older_href=_list_address(state, found.next) if found.has_more else None,
        server_url=server_url,
        now=datetime.now(UTC),
    )


def run_page(
    session: Session, store: LocalStore, settings: Settings, principal: Principal, run_id: str, url: str
) -> RunPage:
    run = runs.run_out(session, principal.project_id, run_id)
    files = files_of(session, principal.project_id, run_id)
    log, num_log_lines = repository.log_tail(session, run_id, LOG_LINES)
    return RunPage(
        viewer=viewer_of(session, principal),
        run=run,
        before=_before(session, store, files, run, principal.project_id),
        figures=_figures(run),
        charts=_charts(session, principal.project_id, run),
        gate=_gate(session, store, settings, run_id),
        samples=_samples(session, principal.project_id, run),
        log=tuple(_log_line(event) for event in log),
        num_log_lines=num_log_lines,
        attempts=tuple(
            Attempt(stage=stage.name.value, row=row) for stage in run.stages for row in stage.attempts
        ),
        artifacts=tuple(files.values()),
        spec_yaml=yaml.safe_dump(run.spec, sort_keys=False, allow_unicode=True),
        commands=_commands(run, url),
        now=datetime.now(UTC),
    )


def newest_event(session: Session, principal: Principal, run_id: str) -> int:
    found = repository.last_seq(session, principal.project_id, run_id)
    if found is None:
        raise ApiProblem(404, Code.NOT_FOUND, f"this project has no run {run_id[:80]!r}")
    return found


def _before(session: Session, store: LocalStore, files: Files, run: RunOut, project_id: str) -> Before:
    """What the run page says of data, honesty and preflight."""
    is_stopped = run.state is RunState.BLOCKED
    found = read_report(store, files, layout.HONESTY, HonestyReport).content if is_stopped else None
    return Before(
        preflight=judged(session, project_id, run.id),
        honesty=read_report(store, files, layout.HONESTY, Head, remember=True),
        audit=read_report(store, files, layout.AUDIT, Head, remember=True),
        corpus=read_report(store, files, layout.CORPUS_MANIFEST, CorpusReport, remember=True),
        leaks=honesty.findings_page(found, None, 1) if found and found.findings else None,
    )


def _list_address(state: RunState | None, after: str | None) -> str:
    query = {name: value for name, value in (("state", state), ("after", after)) if value}
    return "/?" + urlencode(query) if query else "/"


def _figures(run: RunOut) -> tuple[Figure, ...]:
    measured = {stage.name: stage.metrics for stage in run.stages}
    return tuple(
        Figure(label=label, value=_figure(name, measured.get(stage, {}).get(name)), note=note)
        for stage, name, label, note in FIGURES
    )


def _figure(name: str, value: float | None) -> str | None:
    if value is None:
        return None
    if name == "eval_pass_rate":
        return formats.percent(value)
    return f"{value:,.0f}" if name == "tokens_per_second" else formats.measured(value)


def _charts(session: Session, project_id: str, run: RunOut) -> tuple[curves.Chart, ...]:
    measured = runs.metrics_out(session, project_id, run.id).series
    notes = {stage.name: _reused_note(session, project_id, stage) for stage in run.stages}
    drawn = [
        curves.chart(
            f"{stage}-{part}",
            title,
            unit,
            _series([one for one in measured if one.stage is stage and part in one.name]),
            notes.get(stage, ""),
        )
        for stage, part, title, unit in CHARTS
    ]
    return tuple(chart for chart in drawn if chart is not None)


def _series(measured: Sequence[MetricSeries]) -> list[curves.Series]:
    curved = [one for one in measured if one.name != BASELINE]
    steps = [step for one in curved for step in one.steps]
    levels = [
        curves.Series(name=one.name, steps=[min(steps), max(steps)], values=[one.values[-1]] * 2)
        for one in measured
        if one.name == BASELINE and steps
    ]
    return [curves.Series(name=one.name, steps=one.steps, values=one.values) for one in curved] + levels


def _reused_note(session: Session, project_id: str, stage: StageOut) -> str:
    source = repository.run_of_stage(session, project_id, stage.cached_from) if stage.cached_from else None
    return f"measured in {source}, whose stage was reused" if source else ""


def _gate(session: Session, store: LocalStore, settings: Settings, run_id: str) -> Gate | None:
    row = gates.latest(session, run_id)
    if row is None:
        return None
    return Gate(
        report=GateReport.model_validate(row.report),
        decided_at=row.decided_at,
        lapsed=gates.why_lapsed(session, store, settings, row, reads_bytes=False),
        advice_verdict=row.advice_verdict,
    )


def _samples(session: Session, project_id: str, run: RunOut) -> tuple[Sample, ...]:
    """Those of this run; of a stage that was reused, those of the run that it was reused from."""
    found: list[Sample] = []
    for stage in run.stages:
        source = repository.run_of_stage(session, project_id, stage.cached_from or stage.id)
        if stage.name in SAMPLED_STAGES and source is not None:
            events = repository.samples(session, source, stage.name, 5 * MAX_SAMPLES)
            found += _newest_by_name(events, source if source != run.id else None)
    return tuple(found)


def _newest_by_name(events: Sequence[Event], from_run: str | None) -> list[Sample]:
    by_name: dict[str, Sample] = {}
    for event in events:
        name = str(event.data.get("name", event.stage))
        if name not in by_name and len(by_name) < MAX_SAMPLES:
            by_name[name] = Sample(
                stage=str(event.stage),
                name=name,
                prompt=str(event.data.get("prompt", "")),
                text=str(event.data.get("text", "")),
                time=event.time,
                from_run=from_run,
            )
    return list(by_name.values())


def _log_line(event: Event) -> LogLine:
    return LogLine(
        time=event.time,
        stage=event.stage,
        level=str(event.data.get("level", "info")),
        message=str(event.data.get("message", "")),
    )


def _commands(run: RunOut, url: str) -> tuple[Command, ...]:
    done = {stage.name for stage in run.stages if stage.state in STAGE_DONE}
    commands = [
        Command(purpose="Follow the log", text=f"picochat-client logs -f {run.id}"),
        Command(
            purpose="Wait in a CI job; the exit code tells the outcome", text=f"picochat-client wait {run.id}"
        ),
    ]
    if StageName.GATE in done:
        commands.append(Command(purpose="Gate report", text=f"picochat-client gate {run.id}"))
    if run.verdict == "approved":
        commands.append(Command(purpose="Release it", text=f"picochat-client release NAME {run.id}"))
    if StageName.SFT in done:
        commands += _model_commands(run, url)
    return tuple(commands)


def _model_commands(run: RunOut, url: str) -> list[Command]:
    folder = f"models/{run.name}"
    return [
        Command(
            purpose="Download the model and chat with it",
            text=f"picochat-client get {run.id} {layout.SFT_CHECKPOINT}/ -o {folder}\n"
            f"picochat-client get {run.id} {layout.TOKENIZER} -o {folder}/{layout.TOKENIZER}\n"
            f"picochat chat --checkpoint {folder}/{layout.SFT_CHECKPOINT} "
            f"--tokenizer {folder}/{layout.TOKENIZER}",
        ),
        Command(
            purpose="Ask it through this server (a released model, or a server that allows unreleased ones)",
            text=f'curl {url}/v1/chat/completions -H "Authorization: Bearer $PICOCHAT_API_KEY" '
            "-H 'Content-Type: application/json' \\\n"
            f'  -d \'{{"model": "{run.id}", "messages": [{{"role": "user", "content": "What is Picochat?"}}]}}\'',
        ),
    ]
