import io
from datetime import timedelta

import pytest
from picochat_client.progress import LiveProgress, PlainProgress, progress_for
from picochat_client.view import RunView
from picochat_contract.api import EventOut
from picochat_contract.events import EventType
from picochat_contract.stages import StageName
from picochat_contract.states import Cause, RunState, StageState
from rich.console import Console

from .conftest import FakeClock
from .scripted import START, FakeRun, Script


def a_run(script: Script | None = None) -> FakeRun:
    return FakeRun("run_1", {"scale": "smoke"}, script or Script())


def event(
    seq: int, type: EventType, seconds: float, stage: StageName = StageName.BASE, **data: object
) -> EventOut:
    time = START + timedelta(seconds=seconds)
    return EventOut(seq=seq, time=time, type=type, stage=stage, epoch=1, data=data)


def moved(seq: int, seconds: float, to: str, stage: StageName = StageName.BASE) -> EventOut:
    return event(seq, EventType.STATE, seconds, stage, kind="stage", id="x", **{"from": "queued", "to": to})


@pytest.fixture
def view(clock: FakeClock) -> RunView:
    return RunView(a_run().out(), clock)


def plain(view: RunView, *events: EventOut) -> list[str]:
    out = io.StringIO()
    with PlainProgress(Console(file=out, width=80), view) as progress:
        for item in events:
            progress.on_event(item)
    return out.getvalue().splitlines()


def live(view: RunView, *events: EventOut) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, height=40, force_terminal=True, color_system=None)
    with LiveProgress(console, view) as progress:
        for item in events:
            progress.on_event(item)
    return out.getvalue()


def test_view_gathers_state_numbers_and_samples(view: RunView) -> None:
    for item in a_run().events:
        view.apply(item)
    row = view.rows[StageName.BASE]
    assert (row.state, row.step, row.total_steps) == (StageState.SUCCEEDED, 30, 30)
    assert row.metrics["val_bpb"] == 2.345
    assert set(view.samples) == {"base", "sft"}
    assert view.samples["sft"].prompt == "The "


def test_elapsed_time_goes_on_between_events_by_this_machines_clock(view: RunView, clock: FakeClock) -> None:
    view.apply(moved(1, 100, "running"))
    clock.sleep(7)
    assert view.rows[StageName.BASE].elapsed(view.now()) == 7
    view.apply(moved(2, 103, "succeeded"))
    clock.sleep(50)
    assert view.rows[StageName.BASE].elapsed(view.now()) == 3


def test_events_that_say_nothing_useful_are_harmless(view: RunView) -> None:
    view.apply(event(1, EventType.METRIC, 0, values={"train_loss": "nan?", "lr": 0.1}))
    view.apply(event(2, EventType.METRIC, 0))
    view.apply(event(3, EventType.PROGRESS, 0, step=None))
    view.apply(moved(4, 0, "a_state_of_the_future"))
    row = view.rows[StageName.BASE]
    assert (row.metrics, row.step, row.state) == ({"lr": 0.1}, None, StageState.PENDING)


def test_plain_lines_tell_state_changes_at_once(view: RunView) -> None:
    assert plain(view, moved(1, 0, "running"), moved(2, 4, "succeeded")) == [
        "[ 0:00] base      running",
        "[ 0:04] base      succeeded in 0:04",
    ]


def test_plain_progress_comes_every_ten_seconds_at_most(view: RunView) -> None:
    values = {"train_loss": 3.5, "val_bpb": 2.25, "tokens_per_second": 12_345.0, "eta_seconds": 65.0}
    steps = [event(2 + n, EventType.PROGRESS, n, step=n, total_steps=99, unit="step") for n in range(31)]
    lines = plain(view, moved(1, 0, "running"), event(2, EventType.METRIC, 0, step=1, values=values), *steps)
    assert lines[1:] == [
        f"[ 0:{n}] base      step {n}/99  loss 3.500  bpb 2.250  12.3k tok/s  ETA 1:05" for n in (10, 20, 30)
    ]


def test_what_comes_before_the_first_step_is_named(view: RunView) -> None:
    compiling = event(
        2, EventType.PROGRESS, 12, step=0, total_steps=0, unit="steps", message="compiling the model"
    )
    assert plain(view, moved(1, 0, "running"), compiling)[1] == "[ 0:12] base      compiling the model"
    shown = live(view, moved(1, 0, "running"), compiling)
    assert "compiling" in shown
    assert "0/0" not in shown


def test_plain_lines_tell_of_a_lost_attempt(clock: FakeClock) -> None:
    run = a_run(Script(RunState.FAILED, None, cause=Cause.LOST))
    lines = plain(RunView(run.out(), clock), *run.events)
    assert lines[-2].endswith("base: attempt 1 ended: lost - lease over")
    assert "base      failed" in lines[-1]


def test_live_table_fits_80_columns_and_shows_the_numbers(view: RunView) -> None:
    values = {"train_loss": 3.25, "tokens_per_second": 1_234_567.0, "eta_seconds": 7200.0}
    shown = live(
        view,
        moved(1, 0, "running"),
        event(2, EventType.PROGRESS, 1, step=12345, total_steps=99999, unit="step"),
        event(3, EventType.METRIC, 2, step=12345, values=values),
    )
    last = shown[shown.rindex("stage ") :]
    for wanted in ("running", "12 %", "loss 3.250", "1.2M", "2h00", "0:02", "report"):
        assert wanted in last, wanted
    lines = shown.replace("\x1b", "\n").splitlines()
    assert max(len(line) for line in lines) <= 80


def test_live_shows_the_attempt_from_the_second_on(view: RunView) -> None:
    again = moved(1, 0, "running").model_copy(update={"epoch": 2})
    assert "running #2" in live(view, again)


def test_lines_where_nothing_can_be_redrawn(view: RunView) -> None:
    assert isinstance(progress_for(Console(file=io.StringIO()), view), PlainProgress)
    terminal = Console(file=io.StringIO(), force_terminal=True)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(progress_for(terminal, view), LiveProgress)
    assert isinstance(progress_for(dumb, view), PlainProgress)
