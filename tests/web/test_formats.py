"""How values look: texts of data lose nothing but their power, numbers keep their unit."""

import pytest
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck
from picochat_server.pages import formats


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\ttext\nand lines", "plain\ttext\nand lines"),
        ("nul\x00 bell\x07 del\x7f c1\x85", r"nul\x00 bell\x07 del\x7f c1\x85"),
        ("right\u202eleft \u2066isolate", r"right\u202eleft \u2066isolate"),
        ("zero\u200bwidth \ufeffmark", r"zero\u200bwidth \ufeffmark"),
        ("tag \U000e0041", r"tag \U000e0041"),
        ("private \ue000", r"private \ue000"),
        ("\u0915\u094d\u200d\u0937 joined", "\u0915\u094d\u200d\u0937 joined"),
        ("caf\u00e9 \u4e16\u754c \U0001f600", "caf\u00e9 \u4e16\u754c \U0001f600"),
    ],
)
def test_what_cannot_be_seen_becomes_an_escape(text: str, shown: str) -> None:
    assert formats.visible(text) == shown


def test_a_long_text_is_cut_before_it_is_escaped() -> None:
    assert formats.visible("\x00" * 10, 3) == r"\x00\x00\x00 ... (7 more characters)"
    assert formats.visible("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("measured", "block", "shown"),
    [
        (0.2589, "> 30% (long)", "25.9 %"),
        (0.0004, "> 1%", "0.04 %"),
        (3.0, "> 0", "3"),
        (40_000_000.0, "< 1,000,000 (long)", "40,000,000"),
        ("caution", "is blocked", "caution"),
        (None, "is not measured", "not measured"),
    ],
)
def test_a_measured_value_has_the_unit_of_its_limit(
    measured: float | str | None, block: str, shown: str
) -> None:
    check = PreflightCheck(
        id="x",
        status=CheckStatus.PASS,
        measured=measured,
        warn=None,
        block=block,
        profile="all",
        message="",
        fix="",
    )
    assert formats.measured_of(check) == shown
