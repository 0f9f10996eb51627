"""What the events say about a run so far: a row per stage, the samples. Pure: no terminal, no network."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from picochat_contract.api import EventOut, RunOut
from picochat_contract.events import EventType
from picochat_contract.stages import StageName
from picochat_contract.states import STAGE_FINAL, StageState

from picochat_client.retry import Clock


@dataclass
class StageRow:
    """One line of the live view. Changed only by `RunView.apply`."""

    name: StageName
    state: StageState
    epoch: int = 0
    step: int | None = None
    total_steps: int | None = None
    unit: str = "step"
    activity: str | None = None
    """What it does before its first step, such as compiling."""
    metrics: dict[str, float] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str | None = None

    def elapsed(self, now: datetime | None) -> float | None:
        end = self.finished_at or now
        return (end - self.started_at).total_seconds() if self.started_at and end else None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Text that a model wrote, with the prompt that it went on from."""

    prompt: str
    text: str


class RunView:
    def __init__(self, run: RunOut, clock: Clock) -> None:
        self.run = run
        self.rows = {stage.name: StageRow(name=stage.name, state=stage.state) for stage in run.stages}
        self.samples: dict[str, Sample] = {}
        self._clock = clock
        self._last_time: datetime | None = None
        self._seen_at = clock.monotonic()

    def apply(self, event: EventOut) -> StageRow | None:
        """Take in an event; return the row that it is about."""
        self._last_time = event.time
        self._seen_at = self._clock.monotonic()
        row = self.rows.get(event.stage) if event.stage else None
        if row is None:
            return None
        if event.epoch is not None:
            row.epoch = max(row.epoch, event.epoch)
        if event.type is EventType.STATE:
            self._state(row, event)
        elif event.type is EventType.PROGRESS:
            row.step = _whole(event.data.get("step"))
            row.total_steps = _whole(event.data.get("total_steps"))
            row.activity = None if row.step else event.data.get("message")
            row.unit = str(event.data.get("unit") or row.unit)
        elif event.type is EventType.METRIC:
            row.metrics |= _numbers(event.data.get("values"))
        elif event.type is EventType.SAMPLE:
            name = str(event.data.get("name"))
            self.samples[name] = Sample(
                prompt=str(event.data.get("prompt", "")), text=str(event.data.get("text", ""))
            )
        return row

    def now(self) -> datetime | None:
        """The server's time now, so that a wrong clock on this machine shows no wrong times."""
        if self._last_time is None:
            return None
        return self._last_time + timedelta(seconds=self._clock.monotonic() - self._seen_at)

    @staticmethod
    def _state(row: StageRow, event: EventOut) -> None:
        if event.data.get("kind") != "stage":
            return
        try:
            row.state = StageState(event.data.get("to", ""))
        except ValueError:
            return  # a state of a newer server
        row.message = event.data.get("message")
        if row.state is StageState.RUNNING and row.started_at is None:
            row.started_at = event.time
        row.finished_at = event.time if row.state in STAGE_FINAL else None


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    return {str(name): float(value) for name, value in values.items() if isinstance(value, int | float)}


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None
