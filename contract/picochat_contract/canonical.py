"""Canonical JSON and sha256: the one way that fingerprints and digests are made."""

import hashlib
import json
import re
from typing import Any

SHA256_HEX = re.compile(r"^[0-9a-f]{64}$")


def canonical_json(value: Any) -> str:
    """Serialise with sorted keys, no spaces, no NaN: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_hex(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return hashlib.sha256(raw).hexdigest()


def digest_of(value: Any) -> str:
    """sha256 over the canonical JSON of `value`."""
    return sha256_hex(canonical_json(value))
