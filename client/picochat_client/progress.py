"""What `submit --wait` shows while a run goes on: a live table on a terminal, plain lines elsewhere.

Both write to stderr, so that stdout holds the result alone. 80 columns are enough.
"""

from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self

from picochat_contract.api import EventOut
from picochat_contract.events import EventType
from picochat_contract.states import STAGE_FINAL, StageState
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from picochat_client.terminal import duration, printable, short_number
from picochat_client.view import RunView, StageRow

PLAIN_INTERVAL = timedelta(seconds=10)
REFRESH_PER_SECOND = 4
BAR_WIDTH = 12
STATE_STYLES = {
    StageState.PENDING: "dim",
    StageState.QUEUED: "dim",
    StageState.RUNNING: "cyan",
    StageState.UNREACHABLE: "yellow",
    StageState.SUCCEEDED: "green",
    StageState.CACHED: "green",
    StageState.FAILED: "red",
    StageState.CANCELLED: "yellow",
    StageState.SKIPPED: "dim",
}


class Progress(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def on_event(self, event: EventOut) -> None: ...


def progress_for(console: Console, view: RunView) -> Progress:
    """The live table where the console can redraw, plain lines where it cannot."""
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(console, view)
    return PlainProgress(console, view)


class LiveProgress:
    def __init__(self, console: Console, view: RunView) -> None:
        self._view = view
        self._live = Live(
            console=console,
            get_renderable=lambda: stage_table(view),
            refresh_per_second=REFRESH_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def on_event(self, event: EventOut) -> None:
        self._view.apply(event)
        note = attempt_note(event)
        if note:
            self._live.console.print(Text(note, style="yellow"))


class PlainProgress:
    """State changes as they come; progress at most every ten seconds of the run's time."""

    def __init__(self, console: Console, view: RunView) -> None:
        self._console = console
        self._view = view
        self._first: datetime | None = None
        self._last_progress: datetime | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def on_event(self, event: EventOut) -> None:
        self._first = self._first or event.time
        row = self._view.apply(event)
        note = attempt_note(event)
        if note:
            self._say(event, note)
        if row is None:
            return
        if event.type is EventType.STATE and event.data.get("kind") == "stage":
            self._say(event, f"{row.name:<9} {state_line(row, self._view)}")
            self._last_progress = event.time
        elif event.type in (EventType.PROGRESS, EventType.METRIC) and self._is_due(event.time):
            self._say(event, f"{row.name:<9} {progress_line(row)}")
            self._last_progress = event.time

    def _is_due(self, time: datetime) -> bool:
        return self._last_progress is None or time - self._last_progress >= PLAIN_INTERVAL

    def _say(self, event: EventOut, line: str) -> None:
        elapsed = duration((event.time - (self._first or event.time)).total_seconds())
        text = Text(f"[{elapsed:>5}] {printable(line)}".rstrip())
        self._console.print(text, soft_wrap=True, highlight=False)


def stage_table(view: RunView) -> RenderableType:
    """One row per stage."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("stage", width=9, no_wrap=True)
    table.add_column("state", width=11, no_wrap=True)
    table.add_column("", width=BAR_WIDTH)
    table.add_column("step", justify="right", width=9, no_wrap=True)
    table.add_column("loss / bpb", justify="right", width=10, no_wrap=True)
    table.add_column("tok/s", justify="right", width=6, no_wrap=True)
    table.add_column("ETA", justify="right", width=5, no_wrap=True)
    table.add_column("time", justify="right", width=5, no_wrap=True)
    now = view.now()
    for row in view.rows.values():
        elapsed = row.elapsed(now)
        table.add_row(
            row.name.value,
            Text(state_word(row), style=STATE_STYLES[row.state]),
            _bar(row),
            _steps(row),
            _quality(row),
            _speed(row),
            _eta(row),
            duration(elapsed) if elapsed is not None else "",
        )
    return table


def state_word(row: StageRow) -> str:
    """The state, with the number of the attempt from the second on."""
    if row.epoch > 1 and row.state in (StageState.RUNNING, StageState.QUEUED):
        return f"{row.state.value} #{row.epoch}"
    return row.state.value


def state_line(row: StageRow, view: RunView) -> str:
    parts = [state_word(row)]
    elapsed = row.elapsed(view.now())
    if row.state in STAGE_FINAL and elapsed is not None:
        parts.append(f"in {duration(elapsed)}")
    if row.state is StageState.SUCCEEDED and _quality(row):
        parts.append(f" {_quality(row)}")
    if row.message:
        parts.append(f"- {row.message}")
    return " ".join(parts)


def progress_line(row: StageRow) -> str:
    eta, speed = _eta(row), _speed(row)
    parts = [
        row.activity if row.activity and not row.step else "",
        f"{row.unit} {_steps(row)}" if row.step else "",
        _metric(row, "train_loss"),
        _metric(row, "val_bpb"),
        f"{speed} tok/s" if speed else "",
        f"ETA {eta}" if eta else "",
    ]
    return "  ".join(part for part in parts if part)


def attempt_note(event: EventOut) -> str | None:
    """A line about an attempt that ended badly; the stage may be tried again."""
    if event.type is not EventType.STATE or event.data.get("kind") != "attempt":
        return None
    cause = event.data.get("cause")
    if not cause:
        return None
    message = event.data.get("message")
    where = f"{event.stage.value}: " if event.stage else ""
    return f"{where}attempt {event.epoch or '?'} ended: {cause}{f' - {message}' if message else ''}"


def _bar(row: StageRow) -> RenderableType:
    if row.state in (StageState.SUCCEEDED, StageState.CACHED):
        return ProgressBar(total=1, completed=1, width=BAR_WIDTH)
    if row.total_steps and row.step is not None:
        return ProgressBar(total=row.total_steps, completed=row.step, width=BAR_WIDTH)
    if row.state is StageState.RUNNING:
        return ProgressBar(total=None, width=BAR_WIDTH)
    return ""


def _steps(row: StageRow) -> str:
    if row.step is None:
        return ""
    if not row.step and row.activity:
        return row.activity.split()[0][:9]  # "compiling"
    if not row.total_steps:
        return str(row.step)
    full = f"{row.step}/{row.total_steps}"
    return full if len(full) <= 9 else f"{100 * row.step / max(1, row.total_steps):.0f} %"


def _quality(row: StageRow) -> str:
    """The loss while it moves, bits per byte once the stage is done."""
    names = ("train_loss", "val_bpb") if row.state is StageState.RUNNING else ("val_bpb", "train_loss")
    return next((_metric(row, name) for name in names if name in row.metrics), "")


def _metric(row: StageRow, name: str) -> str:
    labels = {"train_loss": "loss", "val_bpb": "bpb"}
    return f"{labels[name]} {row.metrics[name]:.3f}" if name in row.metrics else ""


def _speed(row: StageRow) -> str:
    speed = row.metrics.get("tokens_per_second")
    return short_number(speed) if speed and row.state is StageState.RUNNING else ""


def _eta(row: StageRow) -> str:
    eta = row.metrics.get("eta_seconds")
    return duration(eta) if eta is not None and row.state is StageState.RUNNING else ""
