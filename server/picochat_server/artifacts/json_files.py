"""Stored JSON files, hashed again before anything believes them.

Bytes that are not the recorded ones, or that cannot be parsed, are never passed on; the exception says what
really happened.
"""

import json
from typing import Any

from picochat_contract.api import ArtifactOut
from picochat_contract.canonical import canonical_json, sha256_hex

from picochat_server.artifacts.store import LocalStore

MAX_JSON_BYTES = 64 << 20


class Unusable(Exception):  # noqa: N818 - reads as what happened
    """A stored file cannot be used; the message says why."""


def read_json(store: LocalStore, artifact: ArtifactOut) -> Any:
    """The content of a stored JSON file whose bytes are still those that were recorded; raise Unusable."""
    if artifact.size_bytes > MAX_JSON_BYTES:
        raise Unusable(
            f"{artifact.path} has {artifact.size_bytes} bytes, evidence has at most {MAX_JSON_BYTES}"
        )
    try:
        content = store.path(artifact.sha256).read_bytes()
    except FileNotFoundError:
        raise Unusable(changed(artifact.path, artifact.sha256, None)) from None
    found = sha256_hex(content)
    if found != artifact.sha256:
        raise Unusable(changed(artifact.path, artifact.sha256, found))
    try:
        data = json.loads(content, parse_int=_int64)
        canonical_json(data).encode()  # what a report that quotes it has to stand: no NaN, no lone surrogate
        return data
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, brackets without end
        raise Unusable(f"{artifact.path} is not JSON: {error}") from error


def changed(path: str, recorded: str, found: str | None) -> str:
    """That stored bytes are not the recorded ones; `found` is their sha256 now, None where they are gone."""
    now = f"they now have sha256 {found[:12]}" if found else "they are gone from the store"
    return f"the stored bytes of {path} changed: recorded with sha256 {recorded[:12]}, {now}"


def _int64(digits: str) -> int:
    """Counts are divided: one that no float holds would break the decision."""
    number = int(digits)
    if abs(number) >= 2**63:
        raise ValueError(f"a number of {len(digits)} digits, expected at most 64 bits")
    return number
