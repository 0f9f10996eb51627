"""What holds for one call of `picochat-client`, and how its answers are printed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
from picochat_contract.api import EventOut
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.text import Text

from picochat_client._client import Client
from picochat_client.terminal import printable

PROGRAM = "picochat-client"
SHORT_TIMEOUT_SECONDS = 10.0  # a question that can be asked again by hand
LONG_TIMEOUT_SECONDS = 60.0  # uploads, downloads, waiting for a run


@dataclass(kw_only=True)
class Invocation:
    """Global options; filled in by the program's callback."""

    messages: Console
    """stderr: progress, notices, hints. stdout has the answer alone."""
    transport: httpx.BaseTransport | None = None
    url: str | None = None
    key: str | None = None
    timeout_seconds: float | None = None

    def open(self, *, waits: bool = False) -> Client:
        default = LONG_TIMEOUT_SECONDS if waits else SHORT_TIMEOUT_SECONDS
        return Client(
            self.url,
            self.key,
            timeout_seconds=default if self.timeout_seconds is None else self.timeout_seconds,
            transport=self.transport,
            notice=self._notice,
        )

    def say(self, line: str) -> None:
        """A line for people; above the live table where one is shown."""
        self.messages.print(Text(printable(line)), soft_wrap=True)

    def _notice(self, why: str, seconds_left: float) -> None:
        self.say(f"{why}; trying again for {seconds_left:.0f} s")


def print_json(value: BaseModel) -> None:
    print(json.dumps(value.model_dump(mode="json"), indent=2))


def print_event(event: EventOut, as_json: bool, line: Callable[[EventOut], str]) -> None:
    """One line. The JSON is ASCII: some readers end a line at U+2028, and C1 characters steer terminals."""
    print(json.dumps(event.model_dump(mode="json")) if as_json else line(event), flush=True)


def print_rows(rows: Sequence[BaseModel], table: RenderableType, as_json: bool) -> None:
    """A list: a JSON array, or a table, or a word where it is empty."""
    if as_json:
        print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
    elif rows:
        Console().print(table)
    else:
        print("none")
