"""Lists and reports as rich tables. Text from a server goes in as Text: it is never markup and never steers."""

from collections.abc import Iterable
from datetime import datetime

from picochat_contract.api import ArtifactOut, EventOut, KeyOut, ReleaseOut, RunOut, RunSummary, WorkerOut
from picochat_contract.api_data import DatasetFileOut, DatasetSummary
from picochat_contract.gate import Check, CheckStatus, GateReport, Verdict
from picochat_contract.states import STAGE_FINAL
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from picochat_client.terminal import duration, measured_number, printable, size

VERDICT_STYLES = {Verdict.APPROVED: "bold green", Verdict.WARN: "bold yellow", Verdict.BLOCKED: "bold red"}
CHECK_STYLES = {CheckStatus.PASS: "green", CheckStatus.WARN: "yellow", CheckStatus.BLOCK: "red"}
CHECK_ORDER = {CheckStatus.BLOCK: 0, CheckStatus.WARN: 1, CheckStatus.PASS: 2}
PASSING_METRICS = frozenset({"lr", "grad_norm", "tokens_per_second", "eta_seconds"})  # say nothing at the end


def gate_table(report: GateReport) -> RenderableType:
    """Every check, those that block first."""
    # Together with four gaps these leave 20 of 80 columns for the fix, and no check's name is cut.
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")
    table.add_column("check", width=27, overflow="fold")
    table.add_column("status", width=6, no_wrap=True)
    table.add_column("measured", width=14, no_wrap=True)
    table.add_column("threshold", width=9, no_wrap=True)
    table.add_column("fix", ratio=1)
    for check in sorted(report.checks, key=lambda check: CHECK_ORDER[check.status]):
        table.add_row(
            text(check.id),
            Text(check.status.value, style=CHECK_STYLES[check.status]),
            _measured(check),
            _threshold(check),
            text(check.fix),
        )
    return table


def gate_line(report: GateReport) -> Text:
    line = Text("gate ")
    line.append(f"{report.policy} v{report.policy_version}: ")
    line.append(report.verdict.value, style=VERDICT_STYLES[report.verdict])
    line.append(f"  ({len(report.checks)} checks, {len(report.blocking)} block, {len(report.warnings)} warn)")
    return line


def runs_table(runs: Iterable[RunSummary]) -> RenderableType:
    table = _table("run", "name", "state", "verdict", "stage", "created (UTC)")
    for run in runs:
        table.add_row(
            run.id,
            text(run.name),
            run.state.value,
            verdict_text(run.verdict),
            run.current_stage.value if run.current_stage else "",
            _moment(run.created_at),
        )
    return table


def stages_table(run: RunOut) -> RenderableType:
    table = _table("stage", "state", "step", "attempts", "time", "numbers")
    for stage in run.stages:
        step = f"{stage.step}/{stage.total_steps or '?'}" if stage.step is not None else ""
        elapsed = ""
        if stage.started_at and stage.finished_at and stage.state in STAGE_FINAL:
            elapsed = duration((stage.finished_at - stage.started_at).total_seconds())
        numbers = ", ".join(
            f"{name} {measured_number(value)}"
            for name, value in stage.metrics.items()
            if name not in PASSING_METRICS
        )
        said = "; ".join(part for part in (stage.message or "", numbers) if part)
        table.add_row(
            stage.name.value, stage.state.value, step, str(len(stage.attempts) or ""), elapsed, text(said)
        )
    return table


def artifacts_table(artifacts: Iterable[ArtifactOut]) -> RenderableType:
    table = _table("path", "size", "kind", "sha256")
    for artifact in artifacts:
        table.add_row(
            text(artifact.path), size(artifact.size_bytes), artifact.kind.value, artifact.sha256[:12]
        )
    return table


def keys_table(keys: Iterable[KeyOut]) -> RenderableType:
    table = _table("key", "name", "scopes", "expires", "revoked")
    for key in keys:
        table.add_row(
            key.id,
            text(key.name),
            " ".join(key.scopes),
            _moment(key.expires_at) if key.expires_at else "never",
            _moment(key.revoked_at) if key.revoked_at else "",
        )
    return table


def releases_table(releases: Iterable[ReleaseOut]) -> RenderableType:
    table = _table("name", "version", "verdict", "run", "checkpoint")
    for release in releases:
        table.add_row(
            text(release.name),
            str(release.version),
            verdict_text(release.verdict),
            release.run,
            release.checkpoint_sha256[:12],
        )
    return table


def workers_table(workers: Iterable[WorkerOut]) -> RenderableType:
    table = _table("worker", "host", "device", "last seen (UTC)", "attempt")
    for worker in workers:
        table.add_row(
            text(worker.name),
            text(worker.host),
            text(worker.device),
            _moment(worker.last_seen_at),
            worker.attempt or "idle",
        )
    return table


def datasets_table(datasets: Iterable[DatasetSummary]) -> RenderableType:
    table = _table("dataset", "kind", "files", "size", "license", "digest", "pushed (UTC)")
    for dataset in datasets:
        table.add_row(
            text(f"{dataset.name}@{dataset.version}"),
            dataset.kind,
            str(dataset.num_files),
            size(dataset.size_bytes),
            text(dataset.license or ""),
            dataset.digest[:12],
            _moment(dataset.created_at),
        )
    return table


def dataset_files_table(files: Iterable[DatasetFileOut]) -> RenderableType:
    table = _table("role", "file", "size", "label", "license", "sha256")
    for file in files:
        table.add_row(
            file.role,
            text(file.path),
            size(file.size_bytes),
            text(file.label or ""),
            text(file.license or ""),
            file.digest[:12],
        )
    return table


def event_line(event: EventOut) -> str:
    """`12 12:00:03 base metric step=10 ...` for people; programs take --json."""
    data = " ".join(f"{name}={value}" for name, value in event.data.items())
    stage = event.stage.value if event.stage else "-"
    return printable(f"{event.seq} {event.time:%H:%M:%S} {stage} {event.type.value} {data}").replace(
        "\n", " "
    )


def log_line(event: EventOut) -> str:
    level = str(event.data.get("level", "info"))
    stage = event.stage.value if event.stage else "-"
    return printable(f"{event.time:%H:%M:%S} {stage:<9} {level:<7} {event.data.get('message', '')}")


def verdict_text(verdict: Verdict | None) -> Text:
    return Text(verdict.value, style=VERDICT_STYLES[verdict]) if verdict else Text("-", style="dim")


def text(value: str) -> Text:
    return Text(printable(value))


def _table(*columns: str) -> Table:
    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # a cut id or path would be useless
    return table


def _measured(check: Check) -> str:
    if check.comparison == "present":
        return "present" if check.measured else "missing"
    number = "-" if check.measured is None else measured_number(check.measured)
    if check.interval is not None:
        low, high = check.interval
        return f"{check.measured or 0:.3f} n={check.num_examples}\n{low:.3f} to {high:.3f}"
    return f"{number} n={check.num_examples}" if check.num_examples is not None else number


def _threshold(check: Check) -> str:
    return "present" if check.threshold is None else f"{check.comparison} {check.threshold:g}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
