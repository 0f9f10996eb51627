"""HMAC-SHA256 over the canonical JSON of a gate report, with a key that is derived from the server's secret.

It shows that this server wrote the report and that nobody edited the row since. It proves nothing to somebody
who lacks the secret.
"""

import hashlib
import hmac
from typing import Any

from picochat_contract.canonical import canonical_json

PURPOSE = (
    b"picochat gate report v1"  # the same secret signs browser sessions: a key of its own keeps them apart
)


def sign(secret: str, report: dict[str, Any]) -> str:
    """64 hexadecimal digits over `report`; ValueError without a secret."""
    if not secret:
        raise ValueError("nothing to sign verdicts with: set PICOCHAT_SECRET_KEY")
    key = hmac.digest(secret.encode(), PURPOSE, "sha256")
    return hmac.new(key, canonical_json(report).encode(), hashlib.sha256).hexdigest()


def verify(secret: str, report: dict[str, Any], signature: str) -> bool:
    """True if `signature` is ours; a wrong one takes equally long wherever it differs."""
    return hmac.compare_digest(sign(secret, report).encode(), signature.encode())
