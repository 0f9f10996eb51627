"""The end of `submit --wait`: verdict, gate report, samples, and what to do next."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from picochat_contract import layout
from picochat_contract.api import GateOut, RunOut
from picochat_contract.api_data import PreflightOut
from picochat_contract.evidence import BaseEvidence
from picochat_contract.stages import StageName
from picochat_contract.states import STAGE_DONE, RunState
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from picochat_client._client import Client
from picochat_client._errors import ApiError, NotFound
from picochat_client.installed import typed
from picochat_client.outcome import asks_for_gate, failed_stage
from picochat_client.preflight_tables import preflight_line, preflight_table
from picochat_client.tables import gate_line, gate_table, text, verdict_text
from picochat_client.terminal import printable
from picochat_client.view import Sample

SAMPLE_PATHS = {"base": "base/sample.txt", "sft": "sft/sample.txt"}
SAMPLE_TITLES = {"base": "base sample", "sft": "SFT sample"}
SAMPLE_CHARACTERS = 1200
M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class Reports:
    """What judged a final run; None where it was not judged so."""

    gate: GateOut | None
    preflight: PreflightOut | None
    """Only of a run that preflight stopped, or that ends with it."""


def find_reports(client: Client, run: RunOut) -> Reports:
    is_stopped = run.state is RunState.BLOCKED
    ends_with_preflight = run.state is RunState.SUCCEEDED and run.stages[-1].name is StageName.PREFLIGHT
    return Reports(
        gate=_unless_missing(client.runs.gate, run) if asks_for_gate(run) and not is_stopped else None,
        preflight=_unless_missing(client.runs.preflight, run) if is_stopped or ends_with_preflight else None,
    )


def print_summary(
    console: Console, client: Client, run: RunOut, reports: Reports, samples: dict[str, Sample]
) -> None:
    console.print()
    console.print(headline(run))
    gate = reports.gate
    if reports.preflight is not None:
        console.print(preflight_table(reports.preflight.report))
        console.print(preflight_line(reports.preflight.report))
    elif gate is not None:
        console.print(gate_table(gate.report))
        console.print(gate_line(gate.report))
    elif asks_for_gate(run) and run.state is RunState.SUCCEEDED:
        console.print(Text("the gate was asked for but gave no report: counts as blocked", style="bold red"))
    bpb = _bits_per_byte(client, run)
    if bpb:
        console.print(Text(bpb))
    for name, title in SAMPLE_TITLES.items():
        _print_sample(console, title, samples.get(name) or _stored_sample(client, run, name))
    console.print()
    console.print(Text("this run  "), Text(client.run_page(run.id), style="cyan"), sep="", soft_wrap=True)
    for label, command in _next_commands(run):
        console.print(Text(f"{label:<9} {command}"), soft_wrap=True)


def headline(run: RunOut) -> Text:
    """State and verdict; of a run that did not succeed, why."""
    line = Text.assemble((f"run {run.name}", "bold"), f" ({run.id}) {run.state.value}")
    if run.verdict is not None:
        line.append(", verdict ")
        line.append_text(verdict_text(run.verdict))
    if run.state is RunState.BLOCKED:
        line.append(f"\n{printable(run.message or 'preflight blocked the run')}", style="red")
    stage = failed_stage(run)
    if stage is not None:
        cause = stage.attempts[-1].cause if stage.attempts else None
        line.append(f"\nstage {stage.name.value} failed")
        line.append(f" ({cause.value})" if cause else "")
        line.append(f": {printable(stage.message or run.message or 'no message')}", style="red")
    return line


def _unless_missing(get: Callable[[str], M], run: RunOut) -> M | None:
    try:
        return get(run.id)
    except NotFound:
        return None


def _bits_per_byte(client: Client, run: RunOut) -> str | None:
    """The base model beside the unigram baseline, from the report that the gate reads."""
    if not any(stage.name is StageName.BASE and stage.state in STAGE_DONE for stage in run.stages):
        return None
    try:
        raw = json.loads(client.artifacts.read(run.id, layout.BASE_REPORT))
        base = BaseEvidence.model_validate(raw)
    except (ApiError, ValidationError, ValueError):
        return None  # the key may not read artifacts; the verdict above stands without this line
    ratio = f" ({base.val_bpb / base.unigram_bpb:.2f} of it)" if base.unigram_bpb > 0 else ""
    return f"base validation: {base.bpb_text} bits per byte, unigram baseline {base.unigram_bpb:.3f}{ratio}"


def _stored_sample(client: Client, run: RunOut, name: str) -> Sample | None:
    """The sample of a stage that was reused: it sent no event in this run."""
    try:
        stored = client.artifacts.read(run.id, SAMPLE_PATHS[name])
    except ApiError:
        return None
    return Sample(prompt="", text=stored.decode("utf-8", errors="replace"))


def _print_sample(console: Console, title: str, sample: Sample | None) -> None:
    if sample is None:
        return
    shown = sample.text[:SAMPLE_CHARACTERS] + ("..." if len(sample.text) > SAMPLE_CHARACTERS else "")
    console.print()
    console.rule(title, align="left", characters="-", style="dim")
    if sample.prompt:
        console.print(Text("> " + printable(sample.prompt), style="bold"))
    console.print(text(shown))


def _next_commands(run: RunOut) -> list[tuple[str, str]]:
    done = {stage.name for stage in run.stages if stage.state in STAGE_DONE}
    program, client = typed("picochat"), typed("picochat-client")
    commands = [("pages", f"{program} up")]
    if run.state is RunState.BLOCKED:
        commands.append(("findings", f"{client} honesty {run.id}"))
    if run.state is RunState.FAILED:
        commands.append(("log", f"{client} logs {run.id}"))
    if StageName.SFT in done:
        folder = f"models/{run.name}"
        commands += [
            ("download", f"{client} get {run.id} sft/checkpoint/ -o {folder}"),
            ("", f"{client} get {run.id} {layout.TOKENIZER} -o {folder}/{layout.TOKENIZER}"),
            (
                "chat",
                f"{program} chat --checkpoint {folder}/{layout.SFT_CHECKPOINT} "
                f"--tokenizer {folder}/{layout.TOKENIZER}",
            ),
        ]
    return commands
