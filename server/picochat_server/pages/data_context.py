"""What the pages about data show: one frozen dataclass per page. Every number comes from a row or a stored report."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from picochat_contract.api import RunOut
from picochat_contract.api_data import DatasetFileOut, DatasetOut, DatasetSummary, PreflightOut
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightRecord
from picochat_contract.states import RUN_FINAL, RunState

from picochat_server.pages.context import Command, Figure, Viewer
from picochat_server.pages.honesty import (
    AuditReport,
    ComparedFile,
    EvalScores,
    FindingsPage,
    Head,
    HonestyReport,
    Unclean,
)
from picochat_server.pages.memorization import MemorizationReport
from picochat_server.pages.stored import Stored

Part = Literal["data", "audit", "memorization"]
"""Of the honesty page; each has an address of its own."""
SEVERITY = (CheckStatus.BLOCK, CheckStatus.WARN, CheckStatus.PASS)


@dataclass(frozen=True, kw_only=True)
class MeasuredFile:
    """A file that preflight measured, and the counts that it took."""

    path: str
    sha256: str
    counts: str
    is_runs: bool
    """The run has these bytes at this path."""


@dataclass(frozen=True, kw_only=True)
class PreflightPage:
    viewer: Viewer
    run: RunOut
    out: PreflightOut | None
    """None: the server has not judged yet, or the run has no preflight."""
    record: Stored[PreflightRecord]
    """The stored preflight.json: the facts that were judged."""
    figures: tuple[Figure, ...]
    measured: tuple[MeasuredFile, ...]

    @property
    def title(self) -> str:
        return f"Preflight of {self.run.name}"

    @property
    def is_live(self) -> bool:
        return self.run.state not in RUN_FINAL

    @property
    def checks(self) -> tuple[PreflightCheck, ...]:
        """Blocks first, then those that are waived, warnings, and what passed."""
        found = self.out.report.checks if self.out else ()
        return tuple(
            sorted(found, key=lambda check: (SEVERITY.index(check.status), check.waived_by is not None))
        )


@dataclass(frozen=True, kw_only=True)
class PartLink:
    part: Part
    label: str
    href: str
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class HonestyPage:
    viewer: Viewer
    run: RunOut
    part: Part
    parts: tuple[PartLink, ...]
    honesty: Stored[Head]
    audit: Stored[Head]
    report: Stored[HonestyReport] | Stored[AuditReport] | None
    """The report of this part; None in `memorization`."""
    figures: tuple[Figure, ...]
    compared: tuple[ComparedFile, ...]
    unclean: tuple[Unclean, ...]
    scores: Stored[EvalScores] | None
    """In `data` only: the eval's scores rest on the lines that this report marks."""
    scores_fit: bool
    """The scores are about the eval file that the report is about."""
    findings: FindingsPage | None
    memorization: Stored[MemorizationReport] | None

    @property
    def title(self) -> str:
        return f"Honesty of {self.run.name}"

    @property
    def is_live(self) -> bool:
        return self.run.state not in RUN_FINAL


@dataclass(frozen=True, kw_only=True)
class DatasetsPage:
    viewer: Viewer
    datasets: tuple[DatasetSummary, ...]
    name: str | None
    """Only versions of this name are listed."""
    is_first_page: bool
    first_href: str
    older_href: str | None
    server_url: str
    title: str = "Datasets"


@dataclass(frozen=True, kw_only=True)
class UsingRun:
    id: str
    name: str
    state: RunState
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class DatasetPage:
    viewer: Viewer
    dataset: DatasetOut
    files: tuple[DatasetFileOut, ...]
    """The first ones."""
    roles: Mapping[str, int]
    """Files by role."""
    runs: tuple[UsingRun, ...]
    num_runs_read: int
    """The newest runs whose specs were looked through."""
    commands: tuple[Command, ...]

    @property
    def title(self) -> str:
        return f"{self.dataset.name}@{self.dataset.version}"
