"""One check's result and the report of all of them. A check that was skipped is never counted as passed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from picochat_contract.config_base import Config


class CheckStatus(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    SKIPPED = "skipped"  # nothing was found out; the message says why


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check says of itself."""

    status: CheckStatus
    measured: float | str | None
    """None where nothing could be measured."""
    limit: str
    """What `measured` has to be, in words."""
    message: str


class CheckResult(Config):
    """A row of the report."""

    id: str
    status: CheckStatus
    measured: float | str | None
    limit: str
    message: str
    fix: str
    """What to do about it; empty where it passed."""
    seconds: float


class SanityReport(Config):
    """Content of `preh100_sanity.json`."""

    created_at: datetime
    device: str
    options: dict[str, str | float | bool | None]
    summary: str
    environment: dict[str, str | float | None]
    checks: tuple[CheckResult, ...]

    def with_status(self, status: CheckStatus) -> tuple[CheckResult, ...]:
        return tuple(check for check in self.checks if check.status is status)

    def is_good(self, *, strict: bool) -> bool:
        """Nothing failed; where `strict`, nothing was skipped either."""
        bad = {CheckStatus.FAIL, CheckStatus.SKIPPED} if strict else {CheckStatus.FAIL}
        return not any(check.status in bad for check in self.checks)


def passed(measured: float | str | None, limit: str, message: str) -> Finding:
    return Finding(status=CheckStatus.PASS, measured=measured, limit=limit, message=message)


def failed(measured: float | str | None, limit: str, message: str) -> Finding:
    return Finding(status=CheckStatus.FAIL, measured=measured, limit=limit, message=message)


def skipped(reason: str, limit: str = "", measured: float | str | None = None) -> Finding:
    return Finding(status=CheckStatus.SKIPPED, measured=measured, limit=limit, message=f"skipped: {reason}")


def judged(is_good: bool, measured: float | str | None, limit: str, message: str) -> Finding:
    return (passed if is_good else failed)(measured, limit, message)


def summary_of(checks: Iterable[CheckResult]) -> str:
    """How many passed, which failed, and which were skipped and why."""
    by_status: dict[CheckStatus, list[CheckResult]] = {status: [] for status in CheckStatus}
    for check in checks:
        by_status[check.status].append(check)
    failures, skips = by_status[CheckStatus.FAIL], by_status[CheckStatus.SKIPPED]
    parts = [f"{len(by_status[CheckStatus.PASS])} passed", f"{len(failures)} failed"]
    parts[1] += f" ({', '.join(check.id for check in failures)})" if failures else ""
    reasons = "; ".join(f"{check.id}: {check.message.removeprefix('skipped: ')}" for check in skips)
    parts.append(f"{len(skips)} skipped" + (f" ({reasons})" if reasons else ""))
    return ", ".join(parts)


def markdown(report: SanityReport) -> str:
    lines = ["# Sanity", "", f"{report.summary}.", "", f"Device: {report.device}.", ""]
    lines += [
        "| check | status | measured | limit | seconds | message | fix |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(check) for check in report.checks]
    lines += ["", "## Environment", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in report.environment.items()]
    return "\n".join([*lines, ""])


def shown(measured: float | str | None) -> str:
    if measured is None:
        return "-"
    return measured if isinstance(measured, str) else f"{measured:.3g}"


def _row(check: CheckResult) -> str:
    cells: Sequence[object] = (
        check.id,
        _WORDS[check.status],
        shown(check.measured),
        check.limit,
        f"{check.seconds:.1f}",
        check.message,
        check.fix,
    )
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


_WORDS: Final = {CheckStatus.PASS: "pass", CheckStatus.FAIL: "**fail**", CheckStatus.SKIPPED: "skipped"}
