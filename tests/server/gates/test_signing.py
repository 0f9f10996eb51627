"""Signatures over gate reports."""

import pytest
from picochat_server.gates.signing import sign, verify

REPORT = {"verdict": "blocked", "checks": [{"id": "a", "measured": 0.25}]}


def test_a_signature_is_ours_whatever_the_order_of_keys() -> None:
    signature = sign("secret", REPORT)
    assert len(signature) == 64
    assert verify("secret", dict(reversed(REPORT.items())), signature)


@pytest.mark.parametrize(
    ("secret", "report", "signature"),
    [
        ("another", REPORT, sign("secret", REPORT)),
        ("secret", REPORT | {"verdict": "approved"}, sign("secret", REPORT)),
        ("secret", REPORT, "0" * 64),
        ("secret", REPORT, ""),
        ("secret", REPORT, "not ascii: \u00e9"),
    ],
)
def test_another_key_report_or_signature_is_refused(
    secret: str, report: dict[str, object], signature: str
) -> None:
    assert not verify(secret, report, signature)


def test_nothing_is_signed_without_a_secret() -> None:
    with pytest.raises(ValueError, match="PICOCHAT_SECRET_KEY"):
        sign("", REPORT)
