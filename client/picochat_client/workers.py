"""Workers that the server has heard of."""

from collections.abc import Iterator

from picochat_contract.api import Page, WorkerOut

from picochat_client._http import Http


class Workers:
    def __init__(self, http: Http) -> None:
        self._http = http

    def list(self) -> Iterator[WorkerOut]:
        return self._http.pages("/workers", Page[WorkerOut])
