"""Runs a stage in the test's own process, as `launch.run_stage` does in one of its own: no second spent on imports."""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from picochat_contract.events import StageEvent
from picochat_contract.manifest import StageError, StageJob
from picochat_trainer import process
from picochat_trainer.atomic import write_text
from picochat_trainer.event_tail import EventTail
from picochat_trainer.launch import STOP_SIGNALS, StageResult, read_manifest


def run_stage_here(
    run_dir: Path,
    job: StageJob,
    on_event: Callable[[StageEvent], None] = lambda event: None,
    *,
    keep_open: Sequence[int] = (),
) -> StageResult:
    """Stands in for `launch.run_stage`; for stages without torch."""
    stage_dir = run_dir / "stages" / job.stage.value
    stage_dir.mkdir(parents=True, exist_ok=True)
    write_text(stage_dir / "stage.json", job.model_dump_json(indent=2) + "\n")
    tail = EventTail(stage_dir / "events.jsonl", from_end=True)
    handlers = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    try:
        code = process.main(
            [job.stage.value, "--config", str(stage_dir / "stage.json"), "--out", str(run_dir)]
        )
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for event in tail.new_events():
        on_event(event)
    error = stage_dir / "error.json"
    return StageResult(
        exit_code=code,
        manifest=read_manifest(stage_dir) if code == 0 else None,
        error=StageError.model_validate_json(error.read_bytes()) if error.exists() else None,
        stopped=False,
    )
