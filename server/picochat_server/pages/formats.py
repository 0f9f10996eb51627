"""How values look on a page. A value that was not measured says so; nothing is guessed."""

from datetime import UTC, datetime

NOT_MEASURED = "not measured"
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
