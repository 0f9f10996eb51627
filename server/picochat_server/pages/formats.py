"""How values look on a page. A value that was not measured says so; nothing is guessed."""

import unicodedata
from datetime import UTC, datetime

from picochat_contract.preflight import PreflightCheck

NOT_MEASURED = "not measured"
MAX_TEXT = 300  # characters shown of a text that came with data
_HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
"""Unicode categories that are invisible or change what stands beside them."""
_JOINERS = "\u200c\u200d"  # letters of some scripts are spelled with them
_UNITS = ("B", "kB", "MB", "GB", "TB")


def duration(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """Time from `start` to `end`, or to `now` while it is open; a dash where nothing has started."""
    if start is None:
        return "-"
    return seconds(((end or now) - start).total_seconds())


def seconds(total: float) -> str:
    whole = max(0, int(total))
    if whole < 60:
        return f"{max(0.0, total):.1f} s" if total < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in _UNITS[:-1]:
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} {_UNITS[-1]}"


def moment(value: datetime | None) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if value else "-"


def day_minute(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def clock(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%H:%M:%S")


def measured(value: float | None, digits: int = 3) -> str:
    return NOT_MEASURED if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value * 100:.1f} %"


def compact(value: float | None) -> str:
    """A measured number or threshold without needless zeros."""
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return NOT_MEASURED if value is None else f"{value:,.0f}"


def rate(value: float | None) -> str:
    """A share that may be far below one percent."""
    if value is None:
        return NOT_MEASURED
    return percent(value) if value == 0 or abs(value) >= 0.001 else f"{value * 100:.1g} %"


def measured_of(check: PreflightCheck) -> str:
    """What a check measured, in the unit of its limits."""
    if check.measured is None:
        return NOT_MEASURED
    if isinstance(check.measured, str):
        return visible(check.measured)
    is_share = "%" in f"{check.warn}{check.block}"
    return rate(check.measured) if is_share else compact(check.measured)


def visible(text: object, limit: int = MAX_TEXT) -> str:
    """Text that came with data: what cannot be seen becomes an escape, what is longer is cut and says so."""
    whole = str(text)
    shown = "".join(map(_visible, whole[:limit]))
    more = len(whole) - limit
    return f"{shown} ... ({more:,} more characters)" if more > 0 else shown


def _visible(character: str) -> str:
    if character in "\n\t" or character in _JOINERS or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
