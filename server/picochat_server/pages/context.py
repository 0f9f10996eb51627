"""What each page shows: one frozen dataclass per page. Every number in them comes from a row."""

from dataclasses import dataclass
from datetime import datetime

from picochat_contract.api import ArtifactOut, AttemptOut, RunOut, RunSummary, StageOut
from picochat_contract.api_data import PreflightOut
from picochat_contract.gate import Check, CheckStatus, GateReport
from picochat_contract.stages import StageName
from picochat_contract.states import RUN_FINAL, DesiredState, RunState

from picochat_server.pages.corpus import CorpusReport
from picochat_server.pages.curves import Chart
from picochat_server.pages.honesty import FindingsPage, Head
from picochat_server.pages.stored import Stored


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who looks at the page."""

    key_name: str
    project_name: str
    can_write: bool
    can_download: bool


@dataclass(frozen=True, kw_only=True)
class LoginPage:
    next: str
    """Where to go after the login: a path of this server."""
    error: str | None = None
    viewer: Viewer | None = None
    title: str = "Log in"


@dataclass(frozen=True, kw_only=True)
class ErrorPage:
    status: int
    title: str
    detail: str
    code: str
    request_id: str
    viewer: Viewer | None = None


@dataclass(frozen=True, kw_only=True)
class FilterLink:
    label: str
    href: str
    is_current: bool


@dataclass(frozen=True, kw_only=True)
class RunsPage:
    viewer: Viewer
    filters: tuple[FilterLink, ...]
    runs: tuple[RunSummary, ...]
    state: RunState | None
    is_first_page: bool
    first_href: str
    older_href: str | None
    server_url: str
    now: datetime
    title: str = "Runs"

    @property
    def is_live(self) -> bool:
        return any(run.state not in RUN_FINAL for run in self.runs)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One headline number; `value` is None where nothing was measured."""

    label: str
    value: str | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    stage: str
    name: str
    prompt: str
    text: str
    time: datetime
    from_run: str | None
    """Run that wrote it, where the stage was reused from another run."""


@dataclass(frozen=True, kw_only=True)
class LogLine:
    time: datetime
    stage: str | None
    level: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Attempt:
    stage: str
    row: AttemptOut


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The newest signed decision of the server about this run."""

    report: GateReport
    decided_at: datetime
    lapsed: str | None
    """Why the verdict does not apply any more; None while it does."""
    advice_verdict: str | None

    @property
    def checks(self) -> tuple[Check, ...]:
        """All checks: those that block first, then those that warn."""
        passed = [check for check in self.report.checks if check.status is CheckStatus.PASS]
        return (*self.in_the_way, *passed)

    @property
    def in_the_way(self) -> tuple[Check, ...]:
        """What stands between this model and a release, blocks first."""
        return self.report.blocking + self.report.warnings


@dataclass(frozen=True, kw_only=True)
class Command:
    purpose: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Before:
    """What was found before training: of the run page a summary, the whole of it has pages of its own."""

    preflight: PreflightOut | None
    honesty: Stored[Head]
    audit: Stored[Head]
    corpus: Stored[CorpusReport]
    leaks: FindingsPage | None
    """First findings of the honesty report, of a run that preflight stopped."""


@dataclass(frozen=True, kw_only=True)
class RunPage:
    viewer: Viewer
    run: RunOut
    before: Before
    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...]
    gate: Gate | None
    samples: tuple[Sample, ...]
    log: tuple[LogLine, ...]
    num_log_lines: int
    """All LOG events of the run; `log` holds the newest of them."""
    attempts: tuple[Attempt, ...]
    artifacts: tuple[ArtifactOut, ...]
    spec_yaml: str
    commands: tuple[Command, ...]
    now: datetime

    @property
    def title(self) -> str:
        return self.run.name

    @property
    def is_live(self) -> bool:
        return self.run.state not in RUN_FINAL

    @property
    def shown_state(self) -> str:
        """The state, or `cancelling` between the request and the end of the work."""
        is_cancelling = self.is_live and self.run.desired_state is DesiredState.CANCELLED
        return "cancelling" if is_cancelling else self.run.state.value

    @property
    def shown_verdict(self) -> str | None:
        """The verdict, or `lapsed` where it does not apply any more. That a blocked run is blocked, its state says."""
        if self.run.state is RunState.BLOCKED:
            return None
        if self.gate is not None and self.gate.lapsed:
            return "lapsed"
        return self.run.verdict.value if self.run.verdict else None

    @property
    def can_cancel(self) -> bool:
        return self.viewer.can_write and self.is_live and self.run.desired_state is DesiredState.RUNNING

    @property
    def failed_stages(self) -> tuple[StageOut, ...]:
        return tuple(stage for stage in self.run.stages if stage.state == "failed")

    def state_of(self, stage: StageOut) -> str:
        """The stage's state, or `blocked` of the preflight that stopped the run: it did its work and said no."""
        is_stop = self.run.state is RunState.BLOCKED and stage.name is StageName.PREFLIGHT
        return "blocked" if is_stop else stage.state.value
