"""Read an events.jsonl that another process is writing: complete lines only."""

import logging
from dataclasses import dataclass
from pathlib import Path

from picochat_contract.events import StageEvent
from pydantic import ValidationError

READ_BYTES = 2**20
MAX_LINE_BYTES = 4 * 2**20
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Batch:
    events: list[StageEvent]
    end: int
    """Offset after the last line of the batch."""


class Follower:
    """A position in the file, always at the start of a line, so a torn last line is read when it is whole.

    A writer that restarts may cut off its torn line; what it writes instead starts at our position. If the
    file is shorter than our position it is another file, and we begin again: events carry numbers, and the
    server drops what it has.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def read(self, limit: int = 1000) -> Batch:
        """Up to `limit` events from our position on; the position stays until `advance`."""
        lines = self._lines()[:limit]
        events = [event for event in map(self._parse, lines) if event]
        return Batch(events=events, end=self._offset + sum(map(len, lines)))

    def advance(self, batch: Batch) -> None:
        self._offset = batch.end

    def _lines(self) -> list[bytes]:
        """Complete lines from our position on, about READ_BYTES of them."""
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = 0
                file.seek(self._offset)
                text = file.read(READ_BYTES)
                if b"\n" not in text:
                    text += file.readline(MAX_LINE_BYTES)
        except FileNotFoundError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        if not complete and len(text) >= MAX_LINE_BYTES:
            logger.warning("skipping %d bytes of %s: no line end", len(text), self._path.name)
            self._offset += len(text)
        return complete.splitlines(keepends=True)

    def _parse(self, line: bytes) -> StageEvent | None:
        try:
            return StageEvent.model_validate_json(line)
        except ValidationError as error:
            logger.warning("skipping a line of %s that is no event: %s", self._path.name, error)
            return None
