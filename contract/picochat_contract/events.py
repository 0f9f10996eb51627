"""Lines of `events.jsonl`, and the same events on the wire and in the database."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from picochat_contract.config_base import Config


class EventType(StrEnum):
    STATE = "state"  # data: {kind: run|stage|attempt, id, stage?, from, to, cause?, message?}
    PROGRESS = "progress"  # data: {step, total_steps, unit, message?}
    METRIC = "metric"  # data: {step, values: {name: number}}
    LOG = "log"  # data: {level, message}
    SAMPLE = "sample"  # data: {name, prompt, text}
    CHECKPOINT = "checkpoint"  # data: CheckpointFiles
    GATE = "gate"  # data: {verdict, blocking: [check id], subject}


class StageEvent(Config):
    """One line of `events.jsonl`."""

    seq: int = Field(ge=1, lt=2**31)
    """Counts from 1 within one attempt; makes a repeated upload harmless."""
    time: datetime
    type: EventType
    data: dict[str, Any]


class CheckpointFile(Config):
    path: str
    """Relative to the run folder."""
    sha256: str
    size_bytes: int = Field(ge=0)


class CheckpointFiles(Config):
    """Data of a CHECKPOINT event: a complete, resumable checkpoint lies in `directory`."""

    directory: str
    step: int = Field(ge=0, lt=2**31)
    files: tuple[CheckpointFile, ...]
