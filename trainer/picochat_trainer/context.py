"""What a stage gets from its process: where its files are, what it was told, whom it tells.

A stage is `run(context, config) -> metrics` and touches nothing else of its process. Imports no torch.
"""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from picochat_contract.configs import DistributedStrategy, Resources
from picochat_contract.events import CheckpointFiles, EventType, StageEvent
from picochat_contract.manifest import StageJob

from picochat_trainer.cores import available_cores
from picochat_trainer.inputs import locate

logger = logging.getLogger(__name__)

CHECKPOINT_REQUEST = "checkpoint_now"

T = TypeVar("T")


class Interrupted(BaseException):
    """SIGTERM came: unwind and exit 75. Not an Exception, so that no `except Exception` swallows it."""


class Setup(Protocol):
    """How several ranks get ready together: `training.control`."""

    def main_first(self, prepare: Callable[[], T]) -> T: ...


class EventWriter:
    """Appends `events.jsonl`, one whole line at a time; `seq` goes on from what the file holds. Rank 0 only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seq = 0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._seq = _repair(path)

    def progress(self, step: int, total_steps: int, unit: str, message: str | None = None) -> None:
        data = {"step": step, "total_steps": total_steps, "unit": unit}
        self._write(EventType.PROGRESS, data if message is None else {**data, "message": message})

    def metric(self, step: int, **values: float) -> None:
        """Numbers that are not finite are left out: JSON has none."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._write(EventType.METRIC, {"step": step, "values": finite})

    def log(self, level: str, message: str) -> None:
        """Tell the reader of the run something; `level` is info, warning or error."""
        if self._path is not None:
            logger.log(logging.getLevelNamesMapping()[level.upper()], message)
        self._write(EventType.LOG, {"level": level, "message": message})

    def sample(self, name: str, prompt: str, text: str) -> None:
        self._write(EventType.SAMPLE, {"name": name, "prompt": prompt, "text": text})

    def checkpoint(self, files: CheckpointFiles) -> None:
        self._write(EventType.CHECKPOINT, files.model_dump(mode="json"))

    def close(self) -> None:
        """From here on nothing is written."""
        self._path = None

    def _write(self, type: EventType, data: dict[str, Any]) -> None:
        if self._path is None:
            return
        self._seq += 1
        event = StageEvent(seq=self._seq, time=datetime.now(UTC), type=type, data=data)
        with self._path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(event.model_dump_json() + "\n")


class StageContext:
    """The side of the stage protocol that a stage sees."""

    def __init__(
        self,
        run_dir: Path,
        job: StageJob,
        *,
        device: str = "cpu",
        rank: int = 0,
        local_rank: int = 0,
        world_size: int = 1,
        write_events: bool = True,
        setup: Setup | None = None,
    ) -> None:
        self.run_dir = run_dir
        self.job = job
        self.device = device
        """torch device name: cpu, cuda or cuda:N."""
        self.rank = rank
        self.local_rank = local_rank
        self.world_size = world_size
        self.stage_dir = run_dir / "stages" / job.stage.value
        is_writer = rank == 0 and write_events
        self.events = EventWriter(self.stage_dir / "events.jsonl" if is_writer else None)
        self.stopping = False
        """SIGTERM came while `deferred_stop()` was open."""
        self.outputs: list[str] = []
        self.scratch_folders: list[Path] = []
        self._stop_is_deferred = False
        self._setup = setup

    @property
    def resources(self) -> Resources:
        return self.job.resources

    @property
    def strategy(self) -> DistributedStrategy:
        """How base and SFT share the work out where there are several ranks."""
        return self.resources.distributed_strategy

    @property
    def num_workers(self) -> int:
        """Processes that a CPU stage may use: as many as asked for, else one per core that it may run on."""
        return self.resources.num_threads or available_cores()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def main_first(self, prepare: Callable[[], T]) -> T:
        """Prepare on rank 0, then on the others, which find what it left; only then can ranks talk to each other.

        A stage that trains calls this once, around all that may take long before its first step.
        """
        return prepare() if self._setup is None else self._setup.main_first(prepare)

    def path(self, name: str) -> Path:
        """Where the run-folder file or folder `name` lies; `job.paths` may move it or a folder above it."""
        path = locate(name, self.run_dir, self.job.paths)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def output(self, name: str) -> Path:
        """Register the file or folder `name` for the manifest and return its path."""
        if name not in self.outputs:
            self.outputs.append(name)
        return self.path(name)

    def scratch(self, name: str) -> Path:
        """A folder that is removed once the manifest is in place."""
        path = self.path(name)
        if path not in self.scratch_folders:
            self.scratch_folders.append(path)
        return path

    def keep(self, name: str) -> None:
        """Take a scratch folder out again: it stays when the stage is done."""
        self.scratch_folders = [folder for folder in self.scratch_folders if folder != self.path(name)]

    def checkpoint_requested(self) -> bool:
        """True if a `checkpoint_now` file asks for a resume checkpoint."""
        return (self.stage_dir / CHECKPOINT_REQUEST).exists()

    def checkpoint_done(self) -> None:
        """Take the `checkpoint_now` file away."""
        (self.stage_dir / CHECKPOINT_REQUEST).unlink(missing_ok=True)

    @contextmanager
    def deferred_stop(self) -> Iterator[None]:
        """Inside, SIGTERM only sets `stopping`, and the code looks at it; at the end it is Interrupted."""
        self._stop_is_deferred = True
        try:
            yield
        finally:
            self._stop_is_deferred = False
        if self.stopping:
            raise Interrupted

    def request_stop(self) -> None:
        """Called by the signal handler; outside `deferred_stop()` it raises Interrupted on the spot."""
        self.stopping = True
        if not self._stop_is_deferred:
            raise Interrupted


def _repair(path: Path) -> int:
    """Cut off a last line that a kill tore, and return the last `seq` (0 for none)."""
    if not path.exists():
        return 0
    data = path.read_bytes()
    while data:
        start = data.rfind(b"\n", 0, len(data) - 1) + 1
        if data.endswith(b"\n") and (seq := _seq_of(data[start:])) is not None:
            break
        data = data[:start]
    else:
        seq = 0
    if len(data) != path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(len(data))
    return seq or 0


def _seq_of(line: bytes) -> int | None:
    try:
        seq = json.loads(line)["seq"]
    except (ValueError, KeyError, TypeError):
        return None
    return seq if isinstance(seq, int) else None
