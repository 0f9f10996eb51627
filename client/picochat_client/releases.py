"""Releases: names of models that passed their gate."""

from collections.abc import Iterator

from picochat_contract.api import Page, ReleaseIn, ReleaseOut
from picochat_contract.spec import validated

from picochat_client._http import Http


class Releases:
    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, name: str, run: str) -> ReleaseOut:
        """Release the run's model under `name`; Conflict `gate_not_passed` if its verdict does not allow it."""
        body = validated(ReleaseIn, {"name": name, "run": run}).model_dump()
        return self._http.parse(self._http.request("POST", "/releases", json=body), ReleaseOut)

    def list(self) -> Iterator[ReleaseOut]:
        return self._http.pages("/releases", Page[ReleaseOut])
