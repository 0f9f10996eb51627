"""Runs: submit, list, look, follow, wait, cancel."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from picochat_contract.api import EventOut, GateOut, MetricsOut, Page, RunOut, RunSummary
from picochat_contract.api_data import HonestyOut, PreflightOut
from picochat_contract.spec import RunSpec
from picochat_contract.states import RunState

from picochat_client._http import IDEMPOTENCY_HEADER, Http
from picochat_client._sse import follow_events, list_events

OnEvent = Callable[[EventOut], None]


class Runs:
    def __init__(self, http: Http) -> None:
        self._http = http

    def submit(self, spec: RunSpec | Mapping[str, Any], *, idempotency_key: str | None = None) -> RunOut:
        """Create a run. With the same key and spec again, the first run comes back."""
        body = spec.model_dump(mode="json") if isinstance(spec, RunSpec) else dict(spec)
        headers = {IDEMPOTENCY_HEADER: idempotency_key or uuid.uuid4().hex}
        return self._http.parse(self._http.request("POST", "/runs", json=body, headers=headers), RunOut)

    def get(self, run: str) -> RunOut:
        return self._http.get(run_path(run), RunOut)

    def list(self, *, state: RunState | None = None) -> Iterator[RunSummary]:
        """All runs, newest first; pages are fetched as they are needed."""
        return self._http.pages("/runs", Page[RunSummary], {"state": state.value} if state else None)

    def cancel(self, run: str) -> RunOut:
        """Ask for the run to stop; it is cancelled once its work has ended."""
        return self._http.parse(
            self._http.request("POST", f"{run_path(run)}/cancel", repeatable=True), RunOut
        )

    def checkpoint(self, run: str) -> RunOut:
        """Ask the running stages for a checkpoint; Conflict where none is running."""
        return self._http.parse(
            self._http.request("POST", f"{run_path(run)}/checkpoint", repeatable=True), RunOut
        )

    def events(self, run: str, *, after: int = 0, follow: bool = False) -> Iterator[EventOut]:
        """Events with `seq > after`, each once and in order; with `follow` until the run is final."""
        read = follow_events if follow else list_events
        return read(self._http, run_path(run), after)

    def wait(self, run: str, on_event: OnEvent | None = None, *, after: int = 0) -> RunOut:
        """Follow the run until it is final and return it as it then is.

        Breaks and restarts of the server are waited out as long as the client's `timeout_seconds` allows.
        """
        for event in self.events(run, after=after, follow=True):
            if on_event is not None:
                on_event(event)
        return self.get(run)

    def metrics(self, run: str) -> MetricsOut:
        return self._http.get(f"{run_path(run)}/metrics", MetricsOut)

    def gate(self, run: str) -> GateOut:
        """The signed verdict; NotFound with code `gate_not_ready` before there is one."""
        return self._http.get(f"{run_path(run)}/gate", GateOut)

    def preflight(self, run: str) -> PreflightOut:
        """The server's preflight report; NotFound with code `preflight_not_ready` before there is one."""
        return self._http.get(f"{run_path(run)}/preflight", PreflightOut)

    def honesty(self, run: str) -> HonestyOut:
        """The stored honesty report, and the audit; NotFound with code `honesty_not_ready` before."""
        return self._http.get(f"{run_path(run)}/honesty", HonestyOut)


def run_path(run: str) -> str:
    return f"/runs/{quote(run, safe='')}"
