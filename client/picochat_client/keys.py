"""API keys; every call needs the scope `admin`."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from picochat_contract.api import KeyIn, KeyOut, Page
from picochat_contract.spec import validated

from picochat_client._http import Http


class Keys:
    def __init__(self, http: Http) -> None:
        self._http = http

    def create(self, name: str, scopes: Sequence[str], *, expires_in_days: int | None = None) -> KeyOut:
        """Make a key; `secret` is in this answer only. Not repeated after a lost answer: revoke and make anew."""
        given = {"name": name, "scopes": list(scopes), "expires_in_days": expires_in_days}
        body = validated(KeyIn, given).model_dump(mode="json")
        return self._http.parse(self._http.request("POST", "/keys", json=body), KeyOut)

    def list(self) -> Iterator[KeyOut]:
        return self._http.pages("/keys", Page[KeyOut])

    def revoke(self, key: str) -> None:
        self._http.request("DELETE", f"/keys/{quote(key, safe='')}")
