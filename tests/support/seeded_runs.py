"""Runs as the pages meet them: blocked, running, failed, cached, queued. Rows and files are real, no worker ran."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI
from picochat_contract import layout
from picochat_contract.canonical import sha256_hex
from picochat_contract.events import EventType
from picochat_contract.ids import new_id
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName
from picochat_server.db import transaction
from picochat_server.models import Attempt, Event, Metric, Run, Stage
from picochat_server.runs import chain, events
from sqlalchemy import select
from sqlalchemy.orm import Session

from support.finished_run import (
    STAGE_OF,
    FinishedRun,
    approved_files,
    as_json,
    base_report,
    edited,
    make_finished_run,
    score,
)
from support.measured import leaky_facts, preflight_json
from support.reports import clean_subsets, comparison, finding, memorization

BEFORE_BASE = (StageName.DATASET, StageName.HONESTY, StageName.PREFLIGHT, StageName.TOKENIZER)
SPEC: dict[str, Any] = {"name": "demo", "scale": "demo", "gate": {"profile": "first_release"}}
START = datetime(2026, 3, 4, 9, 0, 0, tzinfo=UTC)
BASE_SAMPLE = (
    "The assignment statement is used to bind names to values and to modify attributes or items of mutable\n"
    "objects: the a list of the expression the target is a an object of the class and the the value of the"
)
STAGE_OF.update(
    {
        layout.TOKENIZER: StageName.TOKENIZER,
        layout.TOKENIZER_CONFIG: StageName.TOKENIZER,
        layout.MEMORIZATION_REPORT: StageName.BASE,
        f"{layout.BASE_BEST}/{layout.WEIGHTS}": StageName.BASE,
        f"{layout.BASE_BEST}/config.json": StageName.BASE,
        f"{layout.SFT_CHECKPOINT}/config.json": StageName.SFT,
        layout.SUMMARY: StageName.REPORT,
        layout.SUMMARY_MD: StageName.REPORT,
    }
)


def model_files() -> dict[str, bytes]:
    """The files of a finished run that an approving policy and a model process need, reports as a trainer writes them."""
    files = approved_files()
    chosen = {
        layout.HONESTY: "of 60 eval prompts none is in what trains",
        layout.AUDIT: "0 of 60 eval prompts",
    }
    reports = {
        path: edited(files[path], status="ready", summary=summary, **comparison(60, []))
        for path, summary in chosen.items()
    }
    eval_sha256 = sha256_hex(files[layout.EVAL])
    scored = edited(
        files[layout.EVAL_REPORT], eval_sha256=eval_sha256, clean_subsets=clean_subsets(50, 60, 0, 0)
    )
    return (
        files
        | reports
        | {
            layout.EVAL_REPORT: scored,
            layout.TOKENIZER: b'{"version": "1.0"}',
            layout.TOKENIZER_CONFIG: b"{}",
            layout.MEMORIZATION_REPORT: json.dumps(memorization()).encode(),
            f"{layout.BASE_BEST}/{layout.WEIGHTS}": b"base weights",
            f"{layout.BASE_BEST}/config.json": b"{}",
            f"{layout.SFT_CHECKPOINT}/config.json": b"{}",
            layout.SUMMARY: b"{}",
            layout.SUMMARY_MD: b"# Summary\n",
        }
    )


def blocked_files() -> dict[str, bytes]:
    """The same from a tiny model: BPB near the baseline, weak evaluation, too few items of one kind."""
    files = model_files()
    report = files[layout.EVAL_REPORT]
    weak = {"groups": {"identity": score(20, 9), "refusal": score(20, 4), "choice": score(20, 5)}}
    base = base_report(json.loads(files[layout.BASE_REPORT])["subject"])
    findings = [finding(1 + number % 20) for number in range(60)]
    seen = comparison(60, findings, omitted=12)
    return files | {
        layout.HONESTY: edited(
            files[layout.HONESTY], status="caution", summary="20 eval items are in the corpus, edited", **seen
        ),
        layout.AUDIT: edited(files[layout.AUDIT], status="caution", **comparison(60, findings[:3])),
        layout.BASE_REPORT: as_json(base.model_copy(update={"val_bpb": 4.21, "unigram_bpb": 4.52})),
        layout.EVAL_REPORT: edited(
            report,
            overall=score(60, 22).model_dump(),
            clean=score(40, 12).model_dump(),
            groups={name: found.model_dump() for name, found in weak["groups"].items()},
            choice=score(20, 5).model_dump(),
            choice_accuracy_adjusted=0.0,
            unsafe_refusal=score(6, 4).model_dump(),
            unsupported_claims=score(60, 4).model_dump(),
            clean_subsets=clean_subsets(22, 60, 20, 10),
        ),
    }


def finished(app: FastAPI, project_id: str, name: str, files: dict[str, bytes]) -> FinishedRun:
    """A run that went through all stages, with curves, log, samples and a verdict."""
    made = make_finished_run(app, project_id, files)
    made.decide()
    with transaction(app.state.sessions) as session:
        run = session.scalars(select(Run).where(Run.id == made.run_id)).one()
        _describe(run, name, "succeeded")
        run.finished_at = START + timedelta(seconds=132)
        run.metrics = {"val_bpb": 4.21, "eval_pass_rate": 22 / 60}
        for position, stage in enumerate(_stages(session, run)):
            stage.started_at = START + timedelta(seconds=12 * position)
            stage.finished_at = stage.started_at + timedelta(seconds=11.4)
            _add_attempt(session, stage, 1, "succeeded")
        base = _stage(session, run, StageName.BASE)
        base.step = base.total_steps = 300
        base.metrics = {"val_bpb": 4.21, "unigram_bpb": 4.52, "tokens_per_second": 21840.0}
        _stage(session, run, StageName.EVAL).metrics = {"eval_pass_rate": 22 / 60}
        _add_metric(session, run, "base", 300, "unigram_bpb", 4.52)
        _fill_events(session, run, 300)
    return made


def running(app: FastAPI, project_id: str, name: str) -> str:
    """A run in the middle of base: one attempt was lost, a second one is at step 140 of 300."""
    with transaction(app.state.sessions) as session:
        run = _new_run(session, project_id, name, "running")
        run.created_at = run.started_at = datetime.now(UTC) - timedelta(seconds=190)
        for stage in _stages(session, run):
            if stage.name in BEFORE_BASE:
                stage.state = "succeeded"
                stage.started_at, stage.finished_at = START, START + timedelta(seconds=3.2)
                _add_attempt(session, stage, 1, "succeeded")
        base = _stage(session, run, StageName.BASE)
        base.state, base.epoch, base.num_attempts = "running", 2, 2
        base.step, base.total_steps, base.started_at = 140, 300, datetime.now(UTC) - timedelta(seconds=95)
        base.metrics = {
            "train_loss": 2.263,
            "val_bpb": 3.192,
            "tokens_per_second": 21840.0,
            "eta_seconds": 71.0,
        }
        _add_attempt(session, base, 1, "lost", cause="lost", message="the lease ended without a heartbeat")
        _add_attempt(session, base, 2, "running")
        _fill_events(session, run, 140)
        return run.id


def failed(app: FastAPI, project_id: str, name: str) -> str:
    """A run whose dataset stage could not read its input."""
    message = "corpus file 'notes.csv' line 7: expected 3 columns, found 2; fix the file and upload it again"
    with transaction(app.state.sessions) as session:
        run = _new_run(session, project_id, name, "failed")
        run.finished_at, run.message = START + timedelta(seconds=2.1), "stage dataset failed"
        for stage in _stages(session, run):
            stage.state = "failed" if stage.name == StageName.DATASET else "skipped"
            stage.message = message if stage.name == StageName.DATASET else "dataset did not succeed"
        dataset = _stage(session, run, StageName.DATASET)
        dataset.started_at, dataset.finished_at = START, START + timedelta(seconds=2.1)
        _add_attempt(session, dataset, 1, "failed", cause="bad_input", message=message, exit_code=2)
        return run.id


def stopped_by_preflight(app: FastAPI, project_id: str, name: str) -> str:
    """A run whose eval is among its SFT rows: honesty found it and preflight stopped the run."""
    files = {path: content for path, content in approved_files().items() if STAGE_OF[path] in BEFORE_BASE}
    del files[layout.PREFLIGHT]
    files[layout.HONESTY] = leaky_honesty(files[layout.HONESTY])
    config = expand(parse_mapping(SPEC))[StageName.PREFLIGHT].model_dump(mode="json")
    digests = {path: sha256_hex(content) for path, content in files.items()}
    files[layout.PREFLIGHT] = preflight_json(config, leaky_facts(digests))
    made = make_finished_run(app, project_id, files)
    state = app.state
    with transaction(state.sessions) as session:
        run = session.scalars(select(Run).where(Run.id == made.run_id)).one()
        _describe(run, name, "running")
        for stage in _stages(session, run):
            stage.state = "succeeded" if stage.name in BEFORE_BASE[:3] else "pending"
            if stage.name == StageName.PREFLIGHT:
                stage.config = config
        session.flush()
        chain.stage_done(session, state.store, state.settings, run, _stage(session, run, StageName.PREFLIGHT))
    return made.run_id


def leaky_honesty(content: bytes) -> bytes:
    """An honesty report with three eval prompts among the SFT rows, one of which is listed."""
    finding = {
        "kind": "exact_sft_prompt_leak",
        "pair": "sft_vs_eval",
        "measure": "normalised",
        "value": 1.0,
        "target": {"source": "eval", "id": "eval:7", "path": None, "line": 7},
        "target_text": "What is the capital of Freedonia?",
        "place": {"source": "sft", "id": "sft:31", "path": None, "line": 31},
        "span_text": "what is the capital of freedonia",
        "message": "the prompt of eval:7 is also the prompt of sft:31",
        "fix": "remove sft:31 from what trains, or replace the item that it gives away",
    }
    return edited(
        content,
        status="blocked",
        summary="of 60 eval prompts 3 are SFT prompts",
        exact_prompt_leaks=3,
        findings=[finding],
        findings_omitted=2,
    )


def queued(app: FastAPI, project_id: str, name: str, created_at: datetime = START) -> str:
    with transaction(app.state.sessions) as session:
        run = _new_run(session, project_id, name, "queued")
        run.created_at, run.started_at = created_at, None
        return run.id


def reusing(app: FastAPI, project_id: str, name: str, source: str) -> str:
    """A run that reused every stage up to base from run `source` and waits with SFT."""
    with transaction(app.state.sessions) as session:
        run = _new_run(session, project_id, name, "running")
        run.created_at = run.started_at = datetime.now(UTC) - timedelta(seconds=190)
        twins = {stage.name: stage for stage in session.scalars(select(Stage).where(Stage.run_id == source))}
        for stage in _stages(session, run)[: len(BEFORE_BASE) + 1]:
            stage.state, stage.cached_from = "cached", twins[stage.name].id
            stage.metrics = dict(twins[stage.name].metrics)
        _stage(session, run, StageName.SFT).state = "queued"
        return run.id


def log_event(app: FastAPI, run_id: str, message: str, level: str = "info") -> None:
    with transaction(app.state.sessions) as session:
        run = session.scalars(select(Run).where(Run.id == run_id)).one()
        data = {"level": level, "message": message}
        events.append(session, run, EventType.LOG, StageName.BASE, 1, data)


def _new_run(session: Session, project_id: str, name: str, state: str) -> Run:
    run = Run(
        id=new_id("run"),
        project_id=project_id,
        desired_state="running",
        metrics={},
        event_seq=0,
        created_at=START,
        started_at=START,
    )
    _describe(run, name, state)
    session.add(run)
    session.flush()
    for position, (stage, config) in enumerate(expand(parse_mapping(run.spec)).items()):
        session.add(
            Stage(
                id=new_id("stage"),
                run_id=run.id,
                name=stage.value,
                position=position,
                config=config.model_dump(mode="json"),
                needs=[],
                state="pending",
                desired_state="running",
                epoch=0,
                num_attempts=0,
                max_attempts=3,
                checkpoint_now=False,
                metrics={},
            )
        )
    session.flush()
    return run


def _describe(run: Run, name: str, state: str) -> None:
    run.name, run.state, run.scale = name, state, "demo"
    run.spec = parse_mapping(SPEC).model_dump(mode="json")
    run.gate_profile = "first_release"
    run.created_at = run.started_at = START


def _stages(session: Session, run: Run) -> list[Stage]:
    return list(session.scalars(select(Stage).where(Stage.run_id == run.id).order_by(Stage.position)))


def _stage(session: Session, run: Run, name: StageName) -> Stage:
    return next(stage for stage in _stages(session, run) if stage.name == name)


def _add_attempt(session: Session, stage: Stage, epoch: int, state: str, **values: Any) -> None:
    is_open = state == "running"
    session.add(
        Attempt(
            id=new_id("attempt"),
            stage_id=stage.id,
            run_id=stage.run_id,
            epoch=epoch,
            state=state,
            worker="gpu-host-1",
            last_client_seq=0,
            started_at=stage.started_at or START,
            finished_at=None if is_open else (stage.finished_at or START + timedelta(seconds=40)),
            **values,
        )
    )


def _fill_events(session: Session, run: Run, steps: int) -> None:
    for step in range(5, steps + 1, 5):
        loss = 1.9 + 4.6 * math.exp(-step / 60) + 0.12 * math.sin(step * 1.7)
        _add_metric(session, run, "base", step, "train_loss", loss)
        if step % 25 == 0:
            _add_metric(session, run, "base", step, "val_loss", loss + 0.15)
            _add_metric(session, run, "base", step, "val_bpb", 1.35 * loss)
            _log(session, run, step, f"step {step}: train loss {loss:.3f}, 21840 tokens/s")
    _log(session, run, steps, "val loss has not improved for 3 validations", level="warning")
    _add_sample(session, run, "base", "The ", BASE_SAMPLE)
    if steps == 300:
        for step in range(5, 201, 5):
            _add_metric(session, run, "sft", step, "train_loss", 0.6 + 2.2 * math.exp(-step / 40))
        _add_sample(session, run, "sft", "What is Picochat?", "Picochat is a small language model.")
    session.flush()


def _add_metric(session: Session, run: Run, stage: str, step: int, name: str, value: float) -> None:
    session.add(Metric(run_id=run.id, stage=stage, epoch=1, step=step, name=name, value=value))


def _log(session: Session, run: Run, second: int, message: str, level: str = "info") -> None:
    data = {"level": level, "message": message}
    _add_event(session, run, "log", "base", data, START + timedelta(seconds=second))


def _add_sample(session: Session, run: Run, stage: str, prompt: str, text: str) -> None:
    data = {"name": stage, "prompt": prompt, "text": text}
    _add_event(session, run, "sample", stage, data, START + timedelta(seconds=120))


def _add_event(
    session: Session, run: Run, kind: str, stage: str, data: dict[str, Any], time: datetime
) -> None:
    run.event_seq += 1
    session.add(
        Event(run_id=run.id, seq=run.event_seq, time=time, type=kind, stage=stage, epoch=1, data=data)
    )
