import pytest
from picochat_client.terminal import duration, measured_number, printable, short_number, size


def test_printable_keeps_text_and_takes_what_steers() -> None:
    assert printable("a\tb\nc \u00e9\u4e2d") == "a\tb\nc \u00e9\u4e2d"
    for bad in ("\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2028", "\x7f", "\ufeff"):
        assert bad not in printable(f"x{bad}y")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (11_100, "3h05"), (-3, "0:00")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(7, "7"), (999, "999"), (12_345, "12.3k"), (999_960, "1.0M"), (1_250_000, "1.2M")]
)
def test_short_number(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.parametrize(("value", "text"), [(12345.0, "12345"), (0.1234, "0.123"), (0.0, "0")])
def test_measured_number(value: float, text: str) -> None:
    assert measured_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (4200, "4.2 kB"), (1_300_000, "1.3 MB"), (5 * 10**12, "5.0 TB")],
)
def test_size(value: int, text: str) -> None:
    assert size(value) == text
