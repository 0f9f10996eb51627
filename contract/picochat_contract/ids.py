"""Prefixed, time-ordered ids: `run_01jd...`. The prefix tells a reader and a log search what it names."""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u
ID_PATTERN = re.compile(r"^[a-z]{2,6}_[0-9a-hjkmnp-tv-z]{18}$")


def is_id(text: str) -> bool:
    """True if `text` has the shape of an id. What has not names nothing, and is not shown to a database."""
    return ID_PATTERN.fullmatch(text) is not None


PREFIXES = {
    "project": "proj",
    "api_key": "key",
    "run": "run",
    "stage": "stg",
    "attempt": "att",
    "worker": "wkr",
    "release": "rel",
    "gate_report": "gate",
    "endpoint": "ep",
    "dataset": "ds",
    "waiver": "wvr",
}


def new_id(kind: str) -> str:
    """Make an id of `kind`: 9 characters of milliseconds, then 9 random ones (45 bits)."""
    millis = time.time_ns() // 1_000_000
    return f"{PREFIXES[kind]}_{_base32(millis, 9)}{_base32(secrets.randbits(45), 9)}"


def _base32(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, rest = divmod(number, 32)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))
