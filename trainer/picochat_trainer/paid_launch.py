"""The confirmation of a training on paid GPUs that a command starts here, kept in its folder: who, when, and what they were told.

A second call goes on in the folder without asking again, as long as it is about the same launch.
"""

import getpass
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from picochat_client.paid_launch import ask_for
from picochat_contract.config_base import Config
from picochat_contract.configs import ModelConfig, OptimConfig, Resources
from picochat_contract.paid_launch import PaidLaunch, paid_launch, paid_training
from picochat_contract.spec import RunSpec, validated

from picochat_trainer.atomic import previous_of, write_text
from picochat_trainer.preflight.machine import visible_gpus
from picochat_trainer.tokenizer import Tokenizer

RECORD: Final = "paid_launch.json"
_MODEL: Final = "config.json"  # of a checkpoint


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
    _on_record(launch, run_dir, confirmed=confirmed or spec.confirm_paid_launch, say=say)
    return spec.model_copy(update={"confirm_paid_launch": True})


def confirm_training(
    config: OptimConfig,
    model: ModelConfig | None,
    tokenizer: Path,
    resources: Resources,
    out_dir: Path,
    *,
    confirmed: bool,
    say: Callable[[str], None],
) -> None:
    """Return where one stage may be trained: its confirmation is on record in `out_dir`, or it needs none, as on a CPU.

    `model` is None where there is none to start from: no stage will, so nothing is asked. Raises and ends like
    `confirmed_spec`.
    """
    is_cpu = resources.device == "cpu" or (resources.device == "auto" and not visible_gpus())
    if is_cpu or model is None:
        return
    launch = paid_training([config], model, Tokenizer.load(tokenizer).vocab_size, resources)
    if launch is not None:
        _on_record(launch, out_dir, confirmed=confirmed, say=say)


def model_of(checkpoint: Path) -> ModelConfig | None:
    """The model of a checkpoint folder or its `.previous`; None where neither can be read."""
    for folder in (checkpoint, previous_of(checkpoint)):
        try:
            raw = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
            raw.pop("vocab_size")
            return validated(ModelConfig, raw)
        except (OSError, ValueError, KeyError, AttributeError, TypeError):  # whatever the file holds
            continue
    return None


def _on_record(launch: PaidLaunch, run_dir: Path, *, confirmed: bool, say: Callable[[str], None]) -> None:
    """Ask for `launch`, unless the record says that it was confirmed, and record it."""
    before = _read(run_dir)
    if before is not None and before.launch == launch:
        return
    ask_for(launch, confirmed=confirmed, say=say)
    record = LaunchRecord(confirmed_at=datetime.now(UTC), confirmed_by=_user(), launch=launch)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(run_dir / RECORD, record.model_dump_json(indent=2) + "\n")


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
