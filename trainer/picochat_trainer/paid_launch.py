"""The confirmation of a run on paid GPUs that `run tiny` starts, kept in its folder: who, when, and what they were told.

A second call goes on in the folder without asking again, as long as it is about the same launch.
"""

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from picochat_client.paid_launch import ask_for_paid_launch
from picochat_contract.config_base import Config
from picochat_contract.paid_launch import PaidLaunch, paid_launch
from picochat_contract.spec import RunSpec

from picochat_trainer.atomic import write_text

RECORD: Final = "paid_launch.json"


class LaunchRecord(Config):
    """Content of `paid_launch.json`."""

    confirmed_at: datetime
    confirmed_by: str
    """Name of the user whose process it was."""
    launch: PaidLaunch


def confirmed_spec(spec: RunSpec, run_dir: Path, *, confirmed: bool, say: Callable[[str], None]) -> RunSpec:
    """`spec` with its confirmation, which is on record in `run_dir`; as it is where it needs none.

    Raises `confirmation_required` where there is nobody to ask, and ends with exit 5 where the answer is no.
    """
    launch = paid_launch(spec)
    if launch is None:
        return spec
    before = _read(run_dir)
    if before is None or before.launch != launch:
        ask_for_paid_launch(spec, confirmed=confirmed, say=say)
        record = LaunchRecord(confirmed_at=datetime.now(UTC), confirmed_by=_user(), launch=launch)
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / RECORD, record.model_dump_json(indent=2) + "\n")
    return spec.model_copy(update={"confirm_paid_launch": True})


def _read(run_dir: Path) -> LaunchRecord | None:
    try:
        return LaunchRecord.model_validate_json((run_dir / RECORD).read_bytes())
    except (OSError, ValueError):
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have a number and no name for it
        return "unknown"
