"""Follows an `events.jsonl` while a stage writes it."""

from pathlib import Path

from picochat_contract.events import StageEvent


class EventTail:
    """Gives each complete line once; a line without its end waits for the next call."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self._path = path
        # After the last complete line: a torn one is cut off by the stage that starts again.
        self._offset = path.read_bytes().rfind(b"\n") + 1 if from_end and path.exists() else 0

    def new_events(self) -> list[StageEvent]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [StageEvent.model_validate_json(line) for line in complete.splitlines() if line.strip()]
