"""The one object that a program opens to talk to a picochat server."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from picochat_client._config import load_settings
from picochat_client._http import Http
from picochat_client._transfer import Progress
from picochat_client.artifacts import Artifacts
from picochat_client.datasets import Datasets
from picochat_client.keys import Keys
from picochat_client.releases import Releases
from picochat_client.retry import Clock, Notice
from picochat_client.runs import Runs
from picochat_client.specs import prepare_spec
from picochat_client.workers import Workers

DEFAULT_TIMEOUT_SECONDS = 60.0


class Client:
    """Synchronous client; use it as a context manager.

    `url` and `api_key` default to PICOCHAT_URL and PICOCHAT_API_KEY, then to the file of an embedded server.
    `timeout_seconds` is for how long a server that does not answer is tried again. `transport`, `clock` and
    `notice` are seams for tests and command lines.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        transport: httpx.BaseTransport | None = None,
        clock: Clock | None = None,
        notice: Notice | None = None,
    ) -> None:
        settings = load_settings(url, api_key)
        self._http = Http(
            settings.url,
            settings.api_key,
            timeout_seconds=timeout_seconds,
            transport=transport,
            clock=clock,
            notice=notice,
        )
        self.runs = Runs(self._http)
        self.artifacts = Artifacts(self._http)
        self.datasets = Datasets(self._http, self.artifacts)
        self.keys = Keys(self._http)
        self.releases = Releases(self._http)
        self.workers = Workers(self._http)

    @property
    def url(self) -> str:
        return self._http.url

    def run_page(self, run: str) -> str:
        """Address of the run's page in a browser."""
        return f"{self.url}/runs/{run}"

    def prepare_spec(
        self, path: Path, settings: Sequence[str] = (), progress: Progress | None = None
    ) -> dict[str, Any]:
        """Read and check a spec, upload the files that it names; the result goes to `runs.submit`."""
        return prepare_spec(path, self.artifacts, settings, progress)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
