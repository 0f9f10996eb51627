"""What a gate says: checks, and the report that binds them to one checkpoint."""

from enum import StrEnum

from picochat_contract.config_base import Config


class Verdict(StrEnum):
    APPROVED = "approved"
    WARN = "warn"
    BLOCKED = "blocked"


class CheckStatus(StrEnum):
    PASS = "pass"  # noqa: S105 - a status, not a password
    WARN = "warn"
    BLOCK = "block"


class Check(Config):
    """One rule: what was measured, against what, and what to do about it."""

    id: str
    status: CheckStatus
    measured: float | None
    """None where nothing could be measured."""
    threshold: float | None
    """In words of `comparison`; None for rules about presence."""
    comparison: str
    """'>=', '<=', '<', '==' or 'present'."""
    num_examples: int | None = None
    interval: tuple[float, float] | None = None
    """95 % interval of `measured` where it is a rate."""
    message: str
    fix: str
    """What would make it pass; empty where it passed."""
    evidence: str | None = None
    """Name of the evidence that it read."""


class EvidenceRef(Config):
    """Which file a verdict rests on."""

    name: str
    path: str
    sha256: str


class GateReport(Config):
    policy: str
    policy_version: int
    policy_digest: str
    subject: str
    """sha256 of the weights on trial."""
    verdict: Verdict
    checks: tuple[Check, ...]
    evidence: tuple[EvidenceRef, ...]

    @property
    def blocking(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status is CheckStatus.BLOCK)

    @property
    def warnings(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.status is CheckStatus.WARN)
