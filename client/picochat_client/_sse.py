"""The events of a run as they happen: a stream that reconnects, over the list route that settles every doubt.

Each round first lists what is missing, then holds a stream open (`Last-Event-ID`) until it breaks. Events carry
the run's gapless `seq`: one that was seen is dropped, and a gap ends the stream so that the list fills it. Where
streams do not get through (a proxy that buffers, a server without the route) the list is polled.

Own parser, 30 lines: httpx splits lines at U+2028 and its like, which JSON text may hold raw.
Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx
from picochat_contract.api import EventOut, Page, RunOut
from picochat_contract.states import RUN_FINAL
from pydantic import ValidationError

from picochat_client._errors import ApiError, UnexpectedAnswer
from picochat_client._http import Http, Params

POLL_SECONDS = 1.0
SILENCE_SECONDS = 45.0  # a server pings every 15 s
BARREN_STREAMS = 3  # streams without a single byte after which the list is polled instead
SETTLE_ROUNDS = 20
PAGE_LIMIT = 500
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, kw_only=True)
class ServerSentEvent:
    id: str
    event: str
    data: str


def parse_stream(chunks: Iterable[bytes]) -> Iterator[ServerSentEvent | None]:
    """Events of a byte stream; None stands for a chunk that completed none (a ping, a part)."""
    rest, after_return = b"", False
    event_id, name, data = "", "", list[str]()
    for chunk in chunks:
        # A \r ended its line at once; a \n that follows in the next chunk belongs to it.
        fresh = chunk[1:] if after_return and chunk.startswith(b"\n") else chunk
        after_return = chunk.endswith(b"\r")
        *lines, rest = _LINE_END.split(rest + fresh)
        complete = False
        for raw in lines:
            line = raw.decode("utf-8", errors="replace")
            if not line:
                if data:
                    complete = True
                    yield ServerSentEvent(id=event_id, event=name or "message", data="\n".join(data))
                name, data = "", []
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "id":
                event_id = value
            elif field == "event":
                name = value
        if not complete:
            yield None


def list_events(http: Http, run_path: str, after: int) -> Iterator[EventOut]:
    """All stored events with `seq > after`, oldest first."""
    query: Params = {"after": after, "limit": PAGE_LIMIT}
    for event in http.pages(f"{run_path}/events", Page[EventOut], query):
        if event.seq > after:
            after = event.seq
            yield event


def follow_events(http: Http, run_path: str, after: int) -> Iterator[EventOut]:
    """Every event with `seq > after`, once and in order, until the run is final."""
    return _Follower(http, run_path, after).events()


class _Follower:
    def __init__(self, http: Http, run_path: str, after: int) -> None:
        self._http = http
        self._run_path = run_path
        self._last = after
        self._num_barren = 0
        self._streams = True

    def events(self) -> Iterator[EventOut]:
        settling = 0
        while True:
            for event in list_events(self._http, self._run_path, self._last):
                self._last = event.seq
                yield event
            run = self._http.get(self._run_path, RunOut)
            if run.state in RUN_FINAL:
                if run.last_seq <= self._last:
                    return
                settling += 1
                if settling > SETTLE_ROUNDS:
                    raise UnexpectedAnswer(
                        f"{self._http.url} names event {run.last_seq} as the newest of the run but lists only up to "
                        f"{self._last}"
                    )
                self._http.clock.sleep(POLL_SECONDS)
            elif self._streams:
                yield from self._stream()
            else:
                self._http.clock.sleep(POLL_SECONDS)

    def _stream(self) -> Iterator[EventOut]:
        """Events of one stream, until it ends, breaks or skips one."""
        alive, before = False, self._last
        try:
            with self._http.stream(
                f"{self._run_path}/events/stream",
                {
                    "Accept": "text/event-stream",
                    "Cache-Control": "no-store",
                    "Last-Event-ID": str(self._last),
                },
                read_timeout_seconds=SILENCE_SECONDS,
            ) as response:
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    self._streams = False
                    return
                for item in parse_stream(response.iter_bytes()):
                    alive = True
                    event = _event_of(item) if item else None
                    if event is None or event.seq <= self._last:
                        continue
                    if event.seq > self._last + 1:
                        return  # the list has what is missing
                    self._last = event.seq
                    yield event
        except httpx.TransportError:
            pass  # the list that comes next tells whether the server is gone
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                self._streams = False  # the list answered this key, so only the stream is missing
        self._num_barren = 0 if alive else self._num_barren + 1
        self._streams = self._streams and self._num_barren < BARREN_STREAMS
        if self._last == before:
            self._http.clock.sleep(random.uniform(0.05, 0.3) if alive else POLL_SECONDS)


def _event_of(item: ServerSentEvent) -> EventOut | None:
    """None for a message that is not an event of a run, such as a hint of the server to reconnect."""
    try:
        return EventOut.model_validate_json(item.data, extra="ignore")
    except ValidationError:
        return None
