"""A preflight report as a rich table and a line: what `run tiny` prints, and what a client may print of a server's."""

from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck, PreflightReport, PreflightStatus
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from picochat_client.tables import CHECK_ORDER, CHECK_STYLES, text
from picochat_client.terminal import measured_number

STATUS_STYLES = {
    PreflightStatus.READY: "bold green",
    PreflightStatus.WARN: "bold yellow",
    PreflightStatus.BLOCKED: "bold red",
}


def preflight_table(report: PreflightReport) -> RenderableType:
    """Every check that does not pass, those that block first; how many pass stands in `preflight_line`."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold underline")
    table.add_column("check", width=27, overflow="fold")
    table.add_column("status", width=6, no_wrap=True)
    table.add_column("measured", width=14, overflow="fold")
    table.add_column("what and fix", ratio=1, overflow="fold")
    found = [check for check in report.checks if check.status is not CheckStatus.PASS]
    for check in sorted(found, key=_severity):
        table.add_row(
            text(check.id),
            Text(_status(check), style=CHECK_STYLES[check.status]),
            text(_measured(check)),
            text(_what(check)),
        )
    return table


def preflight_line(report: PreflightReport) -> Text:
    """`preflight blocked (56 checks, 2 block, 1 warn)`."""
    line = Text("preflight ")
    line.append(report.status.value, style=STATUS_STYLES[report.status])
    counts = f"{len(report.checks)} checks, {len(report.blocking)} block, {len(report.warnings)} warn"
    line.append(f"  ({counts}, {len(report.waived)} waived)" if report.waived else f"  ({counts})")
    return line


def _severity(check: PreflightCheck) -> tuple[int, bool]:
    return CHECK_ORDER[check.status], check.waived_by is not None


def _status(check: PreflightCheck) -> str:
    return "waived" if check.waived_by is not None else check.status.value


def _measured(check: PreflightCheck) -> str:
    if check.measured is None:
        return "-"
    return check.measured if isinstance(check.measured, str) else measured_number(check.measured)


def _what(check: PreflightCheck) -> str:
    waived = f" (waived by {check.waived_by})" if check.waived_by is not None else ""
    return f"{check.message}: {check.fix}{waived}"
