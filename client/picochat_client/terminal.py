"""Text as a terminal may show it: no control characters from outside, short times and numbers."""

import re

# C0 without tab and newline, DEL, C1, and the characters that reorder or hide text.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def printable(text: str) -> str:
    """`text` with what could steer a terminal shown as a replacement character."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))


def duration(seconds: float) -> str:
    """0:07, 12:34, 3h05."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}"


def short_number(value: float) -> str:
    """7, 950, 12.3k, 1.2M."""
    if abs(value) >= 999_950:
        return f"{value / 1e6:.1f}M"
    if abs(value) >= 1000:
        return f"{value / 1e3:.1f}k"
    return f"{value:.0f}"


def measured_number(value: float) -> str:
    """A count as it is, anything else with three decimals."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else f"{value:.3f}"


def size(num_bytes: int) -> str:
    """Bytes for people: 512 B, 4.2 kB, 1.3 MB."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
