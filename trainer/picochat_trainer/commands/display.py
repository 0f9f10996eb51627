"""Live display and closing summary of stages that run on this machine: the client's display, fed locally."""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from picochat_client.installed import typed
from picochat_client.preflight_tables import preflight_line, preflight_table
from picochat_client.progress import progress_for
from picochat_client.retry import SystemClock
from picochat_client.tables import gate_line, gate_table, text
from picochat_client.terminal import duration, measured_number, printable
from picochat_client.view import RunView
from picochat_contract import layout
from picochat_contract.api import EventOut, RunOut, StageOut
from picochat_contract.evidence import BaseEvidence
from picochat_contract.exit_codes import ClientExit
from picochat_contract.preflight import PreflightRecord, PreflightStatus
from picochat_contract.stages import STAGES, StageName
from picochat_contract.states import STAGE_DONE, DesiredState, RunState, StageState
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from picochat_trainer.local_run import LocalStage, read_gate, read_preflight

SAMPLES = {
    StageName.BASE: ("base sample", "base/sample.txt"),
    StageName.SFT: ("SFT sample", "sft/sample.txt"),
}
SAMPLE_CHARACTERS = 1200


@contextmanager
def live_display(name: str, stages: Sequence[StageName]) -> Iterator[Callable[[EventOut], None]]:
    """Show stages as they go on, on stderr; yields what takes the events."""
    console = Console(stderr=True)
    view = RunView(_as_run(name, stages), SystemClock())
    with progress_for(console, view) as progress:
        yield progress.on_event


def print_stages(rows: Sequence[LocalStage]) -> None:
    """One line per stage: what became of it, how long it took, what it measured."""
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "state", "time", "numbers"):
        table.add_column(title, header_style="bold")
    for row in rows:
        numbers = row.manifest.metrics if row.manifest else {}
        shown = ", ".join(f"{name} {measured_number(value)}" for name, value in numbers.items())
        took = duration(row.manifest.duration_seconds) if row.manifest else ""
        said = printable("; ".join(part for part in (row.message or "", shown) if part))
        table.add_row(row.name.value, row.state.value, took, Text(said))
    _console().print(table)


def print_preflight(run_dir: Path, rows: Sequence[LocalStage], *, in_full: bool) -> PreflightRecord | None:
    """What preflight of these stages said: all that does not pass where it blocks or `in_full`, else one line."""
    if not any(row.name is StageName.PREFLIGHT and row.state in STAGE_DONE for row in rows):
        return None
    report = read_preflight(run_dir / layout.PREFLIGHT)
    if report is None:
        return None
    console = _console()
    console.print()
    if (in_full and report.status is not PreflightStatus.READY) or report.blocking or report.waived:
        console.print(preflight_table(report))
    console.print(preflight_line(report))
    console.print(text(f"{report.summary}; see {run_dir / layout.PREFLIGHT_MD}"), soft_wrap=True)
    return report


def print_run(run_dir: Path, stages: Collection[StageName]) -> None:
    """What came out of `stages`: bits per byte beside the baseline, samples, the gate report.

    The folder may hold more: what an earlier call measured on other weights is not shown.
    """
    console = _console()
    base = _base_evidence(run_dir) if StageName.BASE in stages else None
    for stage, (title, name) in SAMPLES.items():
        path = run_dir / name
        if stage in stages and path.exists():
            console.print()
            console.rule(title, align="left", characters="-", style="dim")
            console.print(text(path.read_text(encoding="utf-8")[:SAMPLE_CHARACTERS]))
    if base is not None:
        console.print(
            f"base validation: {base.bpb_text} bits per byte; a unigram model of the same tokens reaches "
            f"{base.unigram_bpb:.3f}",
            highlight=False,
        )
    gate = read_gate(run_dir) if StageName.GATE in stages else None
    if gate is not None:
        console.print()
        console.print(gate_table(gate))
        console.print(gate_line(gate))
        if gate.blocking:
            names = ", ".join(check.id for check in gate.blocking)
            console.print(text(f"not to be released: blocked by {names}"))
    if StageName.SFT in stages:
        console.print()
        for label, command in (
            *([("summary", str(run_dir / layout.SUMMARY_MD))] if StageName.REPORT in stages else []),
            (
                "chat",
                f"{typed('picochat')} chat --checkpoint {run_dir / layout.SFT_CHECKPOINT} "
                f"--tokenizer {run_dir / layout.TOKENIZER}",
            ),
        ):
            console.print(text(f"{label:<8} {command}"), soft_wrap=True)


def exit_code(rows: Sequence[LocalStage]) -> ClientExit:
    """Of the stages alone; the gate's verdict is a separate matter."""
    if all(row.state in STAGE_DONE for row in rows):
        return ClientExit.OK
    if any(row.state is StageState.CANCELLED for row in rows):
        return ClientExit.CANCELLED
    if any(row.state is StageState.FAILED for row in rows):
        return ClientExit.RUN_FAILED
    return ClientExit.GATE_BLOCKED  # nothing failed, and yet stages were skipped: preflight blocked


def explain_failure(rows: Sequence[LocalStage]) -> None:
    for row in rows:
        if row.state in (StageState.FAILED, StageState.CANCELLED):
            print(f"{row.name} {row.state}: {printable(row.message or '')}", file=sys.stderr)
    if exit_code(rows) is ClientExit.GATE_BLOCKED:
        skipped = next(row for row in rows if row.state is StageState.SKIPPED)
        print(f"stopped before {skipped.name}: {printable(skipped.message or '')}", file=sys.stderr)


def _console() -> Console:
    return Console()


def _base_evidence(run_dir: Path) -> BaseEvidence | None:
    try:
        return BaseEvidence.model_validate(json.loads((run_dir / layout.BASE_REPORT).read_text("utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


def _as_run(name: str, stages: Sequence[StageName]) -> RunOut:
    """The run as a server would describe it before its first event."""
    return RunOut(
        id="local",
        name=name,
        project="local",
        state=RunState.RUNNING,
        desired_state=DesiredState.RUNNING,
        verdict=None,
        scale="",
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
        current_stage=None,
        metrics={},
        message=None,
        spec={},
        stages=[_as_stage(stage, stages) for stage in stages],
        gate_profile="none",
        last_seq=0,
    )


def _as_stage(stage: StageName, present: Sequence[StageName]) -> StageOut:
    return StageOut(
        id=stage.value,
        name=stage,
        state=StageState.PENDING,
        epoch=0,
        fingerprint=None,
        needs=[needed for needed in STAGES[stage].needs if needed in present],
        started_at=None,
        finished_at=None,
        step=None,
        total_steps=None,
        metrics={},
        message=None,
        cached_from=None,
        attempts=[],
    )
