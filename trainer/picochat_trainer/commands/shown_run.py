"""Stages on this machine with a live display, a table behind it, and what preflight found. No torch at import."""

from collections.abc import Mapping
from pathlib import Path

from picochat_contract.config_base import Config
from picochat_contract.exit_codes import ClientExit
from picochat_contract.preflight import PreflightStatus
from picochat_contract.spec import RunSpec
from picochat_contract.stages import StageName

from picochat_trainer.commands.display import (
    exit_code,
    explain_failure,
    live_display,
    print_preflight,
    print_stages,
)
from picochat_trainer.local_run import LocalRun


def run_shown(
    spec: RunSpec,
    out_dir: Path,
    stages: dict[StageName, Config],
    *,
    paths: Mapping[str, str],
    preflight_in_full: bool = False,
) -> int:
    """Run `stages` in the folder; OK where all of them ended well and preflight let them, else how to exit.

    `paths` are those of `StageJob.paths`.
    """
    with live_display(spec.name, list(stages)) as on_event:
        rows = LocalRun(
            run_dir=out_dir,
            stages=stages,
            resources=spec.resources,
            on_event=on_event,
            paths=paths,
            max_attempts=spec.max_attempts,
        ).run()
    print_stages(rows)
    preflight = print_preflight(out_dir, rows, in_full=preflight_in_full)
    code = exit_code(rows)
    if code != ClientExit.OK:
        explain_failure(rows)
        return code
    blocked = preflight is not None and preflight.status is PreflightStatus.BLOCKED
    return ClientExit.GATE_BLOCKED if blocked else ClientExit.OK
