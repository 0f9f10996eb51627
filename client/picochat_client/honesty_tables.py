"""An honesty report or audit as rich tables: risk by pair, then what was found where, and what to do about it."""

from collections.abc import Mapping
from typing import Any

from picochat_contract.api_data import HonestyOut
from picochat_contract.errors import Code, ContractError
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from picochat_client.tables import text

SHOWN_FINDINGS = 20
STATUS_STYLES = {"ready": "bold green", "caution": "bold yellow", "blocked": "bold red"}
RISK_STYLES = {"high": "red", "medium": "yellow", "low": "yellow", "clean": "green"}


class _Shown(BaseModel):
    """The parts of a report that are shown; a report holds more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Place(_Shown):
    id: str
    path: str | None = None
    line: int | None = None


class FindingView(_Shown):
    pair: str
    measure: str
    target: Place
    place: Place
    span_text: str
    fix: str


class PairView(_Shown):
    pair: str
    risk: str
    reason: str | None = None
    num_targets: int
    num_contaminated: int


class MatrixView(_Shown):
    pairs: list[PairView]


class ReportView(_Shown):
    status: str
    summary: str
    contamination_matrix: MatrixView
    findings: list[FindingView]
    findings_omitted: int


def report_view(report: Mapping[str, Any], name: str) -> ReportView:
    """The shown parts of a report; ContractError where it is not one."""
    try:
        return ReportView.model_validate(report)
    except ValidationError as error:
        first = error.errors()[0]
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"the {name} of the run is not one that this client can show "
            f"({'.'.join(map(str, first['loc']))}: {first['msg']}); --json prints it as it is",
            param=name,
        ) from error


def honesty_parts(found: HonestyOut) -> list[RenderableType]:
    """Everything to print about a run's honesty, in order."""
    parts = _parts("honesty", report_view(found.report, "honesty report"))
    if found.audit is not None:
        parts += _parts("audit of what was trained on", report_view(found.audit, "audit report"))
    return parts


def _parts(name: str, report: ReportView) -> list[RenderableType]:
    line = Text(f"{name} ")
    line.append(report.status, style=STATUS_STYLES.get(report.status, ""))
    parts: list[RenderableType] = [line.append(": ").append_text(text(report.summary)), _matrix(report)]
    if report.findings:
        parts.append(_findings(report.findings[:SHOWN_FINDINGS]))
    hidden = len(report.findings) - SHOWN_FINDINGS
    hidden = max(0, hidden) + report.findings_omitted
    return [*parts, Text(f"{hidden} more findings; --json has those that are listed")] if hidden else parts


def _matrix(report: ReportView) -> RenderableType:
    table = _table("pair", "risk", "items", "contaminated")
    for pair in report.contamination_matrix.pairs:
        if pair.reason is not None:
            table.add_row(text(pair.pair), Text("not checked", style="dim"), "", text(pair.reason))
            continue
        risk = Text(pair.risk, style=RISK_STYLES.get(pair.risk, ""))
        table.add_row(text(pair.pair), risk, f"{pair.num_targets:,}", f"{pair.num_contaminated:,}")
    return table


def _findings(findings: list[FindingView]) -> RenderableType:
    table = _table("found", "in", "measure", "shared text and fix")
    for finding in findings:
        what = Text(f"{_short(finding.span_text)!r}: ").append_text(text(finding.fix))
        table.add_row(_place(finding.target), _place(finding.place), text(finding.measure), what)
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")
    for column in table.columns:
        column.overflow = "fold"
    return table


def _place(place: Place) -> Text:
    return text(place.path or place.id)


def _short(shown: str, limit: int = 60) -> str:
    flat = " ".join(shown.split())
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
