"""Runs the stages of a RunSpec one after another in one run folder, without a server.

A stage whose fingerprint and files are those of a finished one is not run again. A blocked preflight ends the run. It
tells what happens as the events that a server would send, so that one display serves both.
"""

import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from picochat_contract import layout
from picochat_contract.api import EventOut
from picochat_contract.config_base import Config
from picochat_contract.configs import PreflightConfig, Resources
from picochat_contract.data_configs import DatasetConfig
from picochat_contract.errors import Code, SpecError
from picochat_contract.events import EventType, StageEvent
from picochat_contract.exit_codes import StageExit
from picochat_contract.gate import GateReport
from picochat_contract.manifest import Manifest, StageJob, fingerprint
from picochat_contract.preflight import PreflightRecord, PreflightStatus
from picochat_contract.preflight_judge import judge
from picochat_contract.stages import STAGES, StageName
from picochat_contract.states import STAGE_DONE, STAGE_TRANSITIONS, StageState, move

from picochat_trainer.atomic import file_sha256
from picochat_trainer.inputs import input_digests, locate, source_digests
from picochat_trainer.launch import StageResult, read_manifest, run_stage
from picochat_trainer.machines import announce

logger = logging.getLogger(__name__)

LOCK = ".lock"


@dataclass
class LocalStage:
    """One stage of a local run. Changed only by `LocalRun`."""

    name: StageName
    config: Config
    state: StageState = StageState.PENDING
    manifest: Manifest | None = None
    message: str | None = None


@dataclass(kw_only=True)
class LocalRun:
    """What to run and where; `run()` does it."""

    run_dir: Path
    stages: dict[StageName, Config]
    resources: Resources
    on_event: Callable[[EventOut], None]
    paths: Mapping[str, str] = field(default_factory=dict)
    """As in `StageJob.paths`."""
    max_attempts: int = 1
    reuse: bool = True

    def __post_init__(self) -> None:
        self.rows = [LocalStage(name=name, config=config) for name, config in self.stages.items()]
        self._seq = 0

    def run(self) -> list[LocalStage]:
        """Run every stage until one does not succeed or preflight blocks; the rest is then skipped or, after a stop,
        pending."""
        with locked(self.run_dir) as lock:
            for index, row in enumerate(self.rows):
                self._run_or_reuse(row, lock)
                reason = self._why_not_on(row)
                if reason is not None:
                    for later in self.rows[index + 1 :]:
                        self._move(later, StageState.SKIPPED, reason)
                if reason is not None or row.state not in STAGE_DONE:
                    break
        return self.rows

    def _why_not_on(self, row: LocalStage) -> str | None:
        """Why the stages after this one are skipped; None where they run, or may run later."""
        if row.state is StageState.FAILED:
            return f"{row.name} failed"
        if row.name is not StageName.PREFLIGHT or row.state not in STAGE_DONE:
            return None
        preflight = self._preflight()
        if preflight is None:
            return (
                f"{self._path(layout.PREFLIGHT)} cannot be read; give the command again, which measures anew"
            )
        return f"preflight: {preflight.summary}" if preflight.status is PreflightStatus.BLOCKED else None

    def _preflight(self) -> PreflightRecord | None:
        return read_preflight(self._path(layout.PREFLIGHT))

    def _run_or_reuse(self, row: LocalStage, lock: int) -> None:
        inputs = input_digests(self._path, row.name)
        sources = source_digests(row.config) if isinstance(row.config, DatasetConfig) else {}
        wanted = fingerprint(row.name, row.config, inputs | sources, self.resources)
        stage_dir = self.run_dir / "stages" / row.name.value
        found = read_manifest(stage_dir) if self.reuse else None
        if found is not None and isinstance(row.config, PreflightConfig):
            found = found if self._still_holds(row.config, found) else None
        if found is not None and found.fingerprint == wanted and self._has_outputs(found):
            row.manifest = found
            self._move(row, StageState.CACHED)
            return
        job = StageJob(
            stage=row.name,
            config=row.config.model_dump(mode="json"),
            resources=self.resources,
            fingerprint=wanted,
            inputs=inputs,
            paths=dict(self.paths),
        )
        self._move(row, StageState.QUEUED)
        self._move(row, StageState.RUNNING)
        result = self._attempts(job, lock)
        row.manifest = result.manifest
        if result.exit_code == StageExit.DONE and result.manifest is not None:
            self._move(row, StageState.SUCCEEDED)
        elif result.stopped or result.exit_code == StageExit.INTERRUPTED:
            self._move(row, StageState.CANCELLED, "stopped; the same command goes on from here")
        else:
            self._move(row, StageState.FAILED, _why(result, stage_dir))

    def _still_holds(self, config: PreflightConfig, manifest: Manifest) -> bool:
        """Preflight measured its machine, too, which no fingerprint covers: host and free disk have to be as they were.

        One that blocked is never reused: what it blocked over may be mended.
        """
        before = self._preflight()
        if before is None or before.blocking or manifest.environment.get("host") != platform.node():
            return False
        free = {"free_disk_bytes": shutil.disk_usage(self.run_dir).free}
        machine = before.facts.machine.model_copy(update=free)
        now = judge(config, before.facts.model_copy(update={"machine": machine}))
        return [check.status for check in now.checks] == [check.status for check in before.checks]

    def _attempts(self, job: StageJob, lock: int) -> StageResult:
        """A stage that something killed from outside is started again; it goes on from its checkpoint."""
        for attempt in range(1, self.max_attempts + 1):
            shared = self.resources.nnodes > 1 and STAGES[job.stage].distributed
            started = announce(self.run_dir, job) if shared else job
            result = run_stage(
                self.run_dir, started, lambda event: self._pass_on(job.stage, event), keep_open=[lock]
            )
            if result.exit_code >= 0 or result.stopped or attempt == self.max_attempts:
                return result
            data = {"level": "warning", "message": f"killed by signal {-result.exit_code}; starting it again"}
            self._emit(job.stage, EventType.LOG, data)
        raise ValueError("max_attempts must be at least 1")

    def _has_outputs(self, manifest: Manifest) -> bool:
        return all(
            (path := self._path(output.path)).is_file()
            and path.stat().st_size == output.size_bytes
            and file_sha256(path) == output.sha256
            for output in manifest.outputs
        )

    def _path(self, name: str) -> Path:
        return locate(name, self.run_dir, self.paths)

    def _move(self, row: LocalStage, state: StageState, message: str | None = None) -> None:
        data = {"kind": "stage", "id": row.name.value, "from": row.state, "to": state, "message": message}
        row.state, row.message = move(STAGE_TRANSITIONS, row.state, state), message
        self._emit(row.name, EventType.STATE, data)

    def _pass_on(self, stage: StageName, event: StageEvent) -> None:
        self._emit(stage, event.type, event.data, event.time)

    def _emit(
        self, stage: StageName, type: EventType, data: dict[str, Any], time: datetime | None = None
    ) -> None:
        self._seq += 1
        self.on_event(
            EventOut(
                seq=self._seq, time=time or datetime.now(UTC), type=type, stage=stage, epoch=None, data=data
            )
        )


@contextmanager
def locked(run_dir: Path) -> Iterator[int]:
    """Hold the run folder alone, as long as this process or a stage that it started lives."""
    run_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SpecError(
                Code.INVALID_VALUE,
                f"another run is working in {run_dir}; wait for it, stop it, or give another --out-dir",
                param="out_dir",
            ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def read_gate(run_dir: Path) -> GateReport | None:
    """The gate report of a finished run; None where it has none."""
    try:
        return GateReport.model_validate(json.loads((run_dir / layout.GATE_REPORT).read_text("utf-8")))
    except (OSError, ValueError):
        return None


def read_preflight(path: Path) -> PreflightRecord | None:
    """The preflight report at `path`; None where there is none that can be read."""
    try:
        return PreflightRecord.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _why(result: StageResult, stage_dir: Path) -> str:
    if result.error is not None:
        return f"{result.error.code}: {result.error.message}"
    if result.exit_code < 0:
        return f"killed by signal {-result.exit_code}; see {stage_dir / 'log.txt'}"
    return f"exit code {result.exit_code} and no manifest; see {stage_dir / 'log.txt'}"
