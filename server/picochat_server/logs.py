"""Log lines of the server: time, level, logger, message, then the ids that came in `extra=`. Keys never do."""

import logging
import sys
from pathlib import Path

from picochat_server.middleware import current_request_id

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class ExtraFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        fields = {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if request_id := current_request_id.get():
            fields.setdefault("request_id", request_id)
        return " ".join([super().formatMessage(record), *(f"{key}={value}" for key, value in fields.items())])


def configure(level: int = logging.INFO, file: Path | None = None) -> None:
    """Send the logs of server and libraries to standard error, or to `file` with only warnings on the screen."""
    screen = logging.StreamHandler(sys.stderr)
    handlers: list[logging.Handler] = [screen]
    if file is not None:
        screen.setLevel(logging.WARNING)
        handlers.append(logging.FileHandler(file))
    for handler in handlers:
        handler.setFormatter(ExtraFormatter())
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
