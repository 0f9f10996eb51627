"""Runs that go as a script says, for the server in memory."""

import json
from datetime import timedelta
from typing import Any

import httpx
from picochat_contract.api import AttemptOut, EventOut, GateOut, RunOut, StageOut
from picochat_contract.api_data import HonestyOut, PreflightOut
from picochat_contract.events import EventType
from picochat_contract.gate import Check, CheckStatus, GateReport, Verdict
from picochat_contract.spec import expand, parse_mapping
from picochat_contract.stages import StageName
from picochat_contract.states import (
    AttemptState,
    Cause,
    DesiredState,
    RunState,
    StageState,
)

from .findings import START, honesty_out, preflight_out

KEY = "pk_test"
URL = "http://127.0.0.1:7460"


def problem(status: int, code: str, detail: str, **extra: Any) -> httpx.Response:
    body = {"title": code, "status": status, "code": code, "detail": detail, **extra}
    headers = {"Content-Type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(body).encode(), headers=headers)


def answer(value: Any, status: int = 200) -> httpx.Response:
    raw = value.model_dump_json() if hasattr(value, "model_dump_json") else json.dumps(value)
    return httpx.Response(status, content=raw.encode(), headers={"Content-Type": "application/json"})


class Script:
    """How a run goes: its events in order, and how it ends."""

    def __init__(
        self,
        state: RunState = RunState.SUCCEEDED,
        verdict: Verdict | None = Verdict.APPROVED,
        *,
        num_metrics: int = 3,
        cause: Cause | None = None,
        num_attempts: int = 1,
    ) -> None:
        self.state, self.verdict, self.cause, self.num_attempts = state, verdict, cause, num_attempts
        self.num_metrics = num_metrics

    def events(self, stages: list[StageName]) -> list[EventOut]:
        made: list[EventOut] = []

        def add(type: EventType, stage: StageName | None, **data: Any) -> None:
            seq = len(made) + 1
            made.append(
                EventOut(
                    seq=seq, time=START + timedelta(seconds=seq), type=type, stage=stage, epoch=1, data=data
                )
            )

        def moved(kind: str, stage: StageName | None, old: str, new: str, **data: Any) -> None:
            add(EventType.STATE, stage, kind=kind, id="x", **{"from": old, "to": new}, **data)

        moved("run", None, "queued", "running")
        for stage in stages:
            moved("stage", stage, "queued", "running")
            if stage in (StageName.BASE, StageName.SFT):
                for index in range(self.num_metrics):
                    step = (index + 1) * 10
                    total = self.num_metrics * 10
                    values = {
                        "train_loss": 5 - index / total,
                        "val_bpb": 2.345,
                        "tokens_per_second": 12_345.0,
                        "eta_seconds": float(total - step),
                    }
                    add(EventType.PROGRESS, stage, step=step, total_steps=total, unit="step")
                    add(EventType.METRIC, stage, step=step, values=values)
                add(EventType.LOG, stage, level="info", message=f"{stage} said \u2028 \x1b[31mhello")
                text = f"a {stage} sample \x1b]0;owned\x07[bold]not markup[/bold]"
                add(EventType.SAMPLE, stage, name=stage.value, prompt="The ", text=text)
            if self.state is RunState.FAILED and stage is StageName.BASE:
                moved("attempt", stage, "running", "lost", cause=self.cause, message="lease over")
                moved("stage", stage, "running", "failed", message="no attempt left")
                break
            moved("stage", stage, "running", "succeeded")
            if self.state is RunState.BLOCKED and stage is StageName.PREFLIGHT:
                add(EventType.GATE, stage, verdict="blocked", blocking=["honesty"])
                for later in stages[stages.index(stage) + 1 :]:
                    moved("stage", later, "pending", "skipped", message="preflight blocked the run: honesty")
                break
        moved("run", None, "running", self.state.value)
        return made


class FakeRun:
    def __init__(self, id: str, body: dict[str, Any], script: Script) -> None:
        self.id, self.body, self.script = id, body, script
        self.spec = parse_mapping(body)
        self.stages = list(expand(self.spec))
        self.events = script.events(self.stages)
        self.visible = 1
        self.cancelled = False
        self.artifacts: dict[str, bytes] = {}

    @property
    def is_final(self) -> bool:
        return self.cancelled or self.visible >= len(self.events)

    def out(self) -> RunOut:
        state = self.script.state if self.is_final else RunState.RUNNING
        state = RunState.CANCELLED if self.cancelled else state
        return RunOut(
            id=self.id,
            name=self.spec.name,
            project="default",
            state=state,
            desired_state=DesiredState.CANCELLED if self.cancelled else DesiredState.RUNNING,
            verdict=self._verdict(state),
            scale=self.spec.scale,
            created_at=START,
            started_at=START,
            finished_at=START if self.is_final else None,
            current_stage=None,
            metrics={},
            message="preflight blocked the run: honesty: 3 eval prompts"
            if state is RunState.BLOCKED
            else None,
            spec=self.body,
            stages=[self._stage(name, state) for name in self.stages],
            gate_profile=self.spec.gate.profile,
            last_seq=self.visible,
        )

    def _verdict(self, state: RunState) -> Verdict | None:
        if state is RunState.BLOCKED:
            return Verdict.BLOCKED
        return self.script.verdict if self.is_final and state is RunState.SUCCEEDED else None

    def _stage(self, name: StageName, run_state: RunState) -> StageOut:
        state = {RunState.SUCCEEDED: StageState.SUCCEEDED, RunState.CANCELLED: StageState.CANCELLED}.get(
            run_state, StageState.PENDING
        )
        attempts = []
        if run_state is RunState.BLOCKED:
            is_before = name in (StageName.DATASET, StageName.HONESTY, StageName.PREFLIGHT)
            state = StageState.SUCCEEDED if is_before else StageState.SKIPPED
        if run_state is RunState.FAILED:
            state = {StageName.DATASET: StageState.SUCCEEDED, StageName.BASE: StageState.FAILED}.get(
                name, StageState.SKIPPED
            )
        if state is StageState.FAILED:
            attempts = [
                AttemptOut(
                    id=f"att_{number}",
                    epoch=number,
                    state=AttemptState.LOST,
                    worker="w",
                    started_at=START,
                    finished_at=START,
                    cause=self.script.cause,
                    message="lease over",
                    exit_code=None,
                )
                for number in range(1, self.script.num_attempts + 1)
            ]
        return StageOut(
            id=f"stg_{name}",
            name=name,
            state=state,
            epoch=len(attempts) or 1,
            fingerprint=None,
            needs=[],
            started_at=START,
            finished_at=START,
            step=None,
            total_steps=None,
            metrics={},
            message="no attempt left" if state is StageState.FAILED else None,
            cached_from=None,
            attempts=attempts,
        )

    def preflight(self) -> PreflightOut | None:
        if StageName.PREFLIGHT not in self.stages or not self.is_final:
            return None
        return preflight_out(self.id, is_leaky=self.script.state is RunState.BLOCKED)

    def honesty(self) -> HonestyOut | None:
        if StageName.HONESTY not in self.stages or not self.is_final:
            return None
        return honesty_out(self.id, is_leaky=self.script.state is RunState.BLOCKED)

    def gate(self) -> GateOut | None:
        if self.spec.gate.profile == "none" or not self.is_final or self.script.verdict is None:
            return None
        return GateOut(
            id="gate_1",
            run=self.id,
            report=gate_report(self.script.verdict),
            decided_at=START,
            signature="00",
            advice_verdict=None,
        )


def gate_report(verdict: Verdict) -> GateReport:
    status = {
        Verdict.APPROVED: CheckStatus.PASS,
        Verdict.WARN: CheckStatus.WARN,
        Verdict.BLOCKED: CheckStatus.BLOCK,
    }[verdict]
    checks = (
        Check(
            id="evidence_base",
            status=CheckStatus.PASS,
            measured=1.0,
            threshold=None,
            comparison="present",
            message="base/train_report.json is present",
            fix="",
        ),
        Check(
            id="skill_release_eval_spelling",
            status=status,
            measured=0.125,
            threshold=0.4,
            comparison=">=",
            num_examples=40,
            interval=(0.055, 0.261),
            message="5 of 40 spelling eval items",
            fix="" if status is CheckStatus.PASS else "a better base model or more SFT rows of this skill",
        ),
    )
    return GateReport(
        policy="skill_release",
        policy_version=1,
        policy_digest="0" * 64,
        subject="1" * 64,
        verdict=verdict,
        checks=checks,
        evidence=(),
    )
