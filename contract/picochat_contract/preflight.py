"""Preflight: what was measured of data and plan, and the checks that stop a run before anything is paid for.

The preflight stage measures (`PreflightFacts`) and judges; the server judges the stored facts again.
"""

from enum import StrEnum

from picochat_contract.config_base import Config
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight_facts import PreflightFacts


class PreflightStatus(StrEnum):
    READY = "ready"
    WARN = "warn"
    BLOCKED = "blocked"


class PreflightCheck(Config):
    """One row of the table: what was measured, from where it warns and blocks, and what to do."""

    id: str
    status: CheckStatus
    measured: float | str | None
    """None where nothing could be measured."""
    warn: str | None
    """Words of the limit from which it warns, such as `< 100`; None where it never warns."""
    block: str | None
    """Words of the limit from which it blocks."""
    profile: str
    """When the row applies: `all`, `long` runs, or the name of a gate profile."""
    message: str
    fix: str
    """What would make it pass; empty where it passed."""
    waived_by: str | None = None
    """Setting that lets the run go on although this check blocks."""


class PreflightReport(Config):
    """Content of `preflight.json`, without the facts."""

    status: PreflightStatus
    """blocked only by checks that are not waived."""
    summary: str
    budget: dict[str, float | bool | str | None]
    """Planned tokens, parameters, epochs, memory and time: what the checks were computed from."""
    checks: tuple[PreflightCheck, ...]
    notes: tuple[str, ...] = ()
    """What holds for every run, and what nobody measured."""

    @property
    def blocking(self) -> tuple[PreflightCheck, ...]:
        return tuple(c for c in self.checks if c.status is CheckStatus.BLOCK and c.waived_by is None)

    @property
    def waived(self) -> tuple[PreflightCheck, ...]:
        return tuple(c for c in self.checks if c.waived_by is not None)

    @property
    def warnings(self) -> tuple[PreflightCheck, ...]:
        return tuple(c for c in self.checks if c.status is CheckStatus.WARN)


class PreflightRecord(PreflightReport):
    """Content of `preflight.json`."""

    facts: PreflightFacts
