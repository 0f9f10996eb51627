"""How a preflight check is made: a rule measures one thing of a plan, limits say from where it warns and blocks.

A rule is data plus one function, so that the table in docs/preflight.md and the judgement cannot differ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from picochat_contract.configs import PreflightConfig, RunPlan
from picochat_contract.errors import Code, SpecError
from picochat_contract.gate_report import CheckStatus
from picochat_contract.preflight import PreflightCheck
from picochat_contract.preflight_budget import Budget, plan_budget
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.stages import StageName

NO_ROOM: Final = 1e9
"""Stands for a share of nothing: over any limit."""
RELEASE_PROFILES: Final = ("first_release", "skill_release")


class Condition(StrEnum):
    """When a limit holds."""

    LONG = "long"
    RELEASE = "release"  # gate profile first_release or skill_release
    SKILL_RELEASE = "skill_release"


class Waiver(StrEnum):
    """Settings of `preflight` that let a run go on although a check blocks."""

    LEAKY_EVAL = "allow_leaky_eval"
    UNSAFE_LONG_RUN = "allow_unsafe_long_run"
    DEFAULT_TUNING_DATA = "allow_default_tuning_data"

    @property
    def flag(self) -> str:
        """Option of `picochat run tiny` that sets it."""
        return f"--{self.value.replace('_', '-')}"


Unit = Literal["count", "share", "number", "words"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a rule found: a number or a word for the limits, and a sentence for people."""

    value: float | str | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One threshold and when it holds; all conditions must."""

    operator: Literal["<", ">", "is", "is not measured"]
    value: float | str | None = None
    when: tuple[Condition, ...] = ()

    def is_met_by(self, value: float | str | None) -> bool:
        """True: the value is on the bad side."""
        if self.operator == "is not measured" or value is None:
            return value is None and self.operator == "is not measured"
        if self.operator == "is":
            return value == self.value
        assert isinstance(value, int | float) and isinstance(self.value, int | float)
        return value < self.value if self.operator == "<" else value > self.value

    def in_words(self, unit: Unit) -> str:
        shown = "" if self.value is None else f" {_shown(self.value, unit)}"
        when = f" ({', '.join(self.when)})" if self.when else ""
        return f"{self.operator}{shown}{when}"


def below(value: float, *when: Condition) -> Limit:
    return Limit(operator="<", value=value, when=when)


def above(value: float, *when: Condition) -> Limit:
    return Limit(operator=">", value=value, when=when)


def equal(value: str, *when: Condition) -> Limit:
    return Limit(operator="is", value=value, when=when)


def not_measured(*when: Condition) -> Limit:
    return Limit(operator="is not measured", when=when)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A plan on trial: what was asked, what was measured, what follows from both."""

    config: PreflightConfig
    plan: RunPlan
    facts: PreflightFacts
    budget: Budget

    @classmethod
    def of(cls, config: PreflightConfig, facts: PreflightFacts) -> "Subject":
        if config.plan is None:
            raise SpecError(
                Code.INVALID_VALUE,
                "preflight judges a whole plan, and this config holds none; `expand()` of a run spec fills it in",
                param="preflight.plan",
            )
        budget = plan_budget(config, config.plan, facts)
        return cls(config=config, plan=config.plan, facts=facts, budget=budget)

    @property
    def conditions(self) -> frozenset[Condition]:
        profile = self.plan.gate.profile
        found = {
            Condition.LONG: self.budget.long_run,
            Condition.RELEASE: profile in RELEASE_PROFILES,
            Condition.SKILL_RELEASE: profile == "skill_release",
        }
        return frozenset(condition for condition, holds in found.items() if holds)

    def runs(self, stage: StageName) -> bool:
        return stage.value in self.plan.stages


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One row of the table."""

    id: str
    measures: str
    """What is measured, in words."""
    warn: tuple[Limit, ...] = ()
    block: tuple[Limit, ...] = ()
    fix: str
    """What to do; names of budget values in braces are filled in."""
    measure: Callable[[Subject], Measured]
    unit: Unit = "count"
    stage: StageName | None = None
    """The check is left out where the run has not this stage."""
    waiver: Waiver = Waiver.UNSAFE_LONG_RUN

    @property
    def warn_words(self) -> str | None:
        return _in_words(self.warn, self.unit)

    @property
    def block_words(self) -> str | None:
        return _in_words(self.block, self.unit)

    @property
    def profile(self) -> str:
        """`all` where any limit holds for every run; else the conditions of its limits."""
        limits = (*self.warn, *self.block)
        if any(not limit.when for limit in limits):
            return "all"
        return ", ".join(sorted({condition for limit in limits for condition in limit.when}))


def judge_rule(rule: Rule, subject: Subject) -> PreflightCheck:
    """Measure and compare. A block that a setting waives stays a block and names the setting."""
    measured = rule.measure(subject)
    status = _status(rule, measured.value, subject)
    waived = status is CheckStatus.BLOCK and getattr(subject.config, rule.waiver.value)
    return PreflightCheck(
        id=rule.id,
        status=status,
        measured=measured.value,
        warn=rule.warn_words,
        block=rule.block_words,
        profile=rule.profile,
        message=measured.message,
        fix="" if status is CheckStatus.PASS else _filled(rule.fix, subject.budget.as_dict()),
        waived_by=f"preflight.{rule.waiver.value}" if waived else None,
    )


def _status(rule: Rule, value: float | str | None, subject: Subject) -> CheckStatus:
    for limits, status in ((rule.block, CheckStatus.BLOCK), (rule.warn, CheckStatus.WARN)):
        if any(subject.conditions.issuperset(limit.when) and limit.is_met_by(value) for limit in limits):
            return status
    return CheckStatus.PASS


def _in_words(limits: tuple[Limit, ...], unit: Unit) -> str | None:
    return "; ".join(limit.in_words(unit) for limit in limits) or None


def _shown(value: float | str, unit: Unit) -> str:
    if isinstance(value, str):
        return value
    if unit == "share":
        return f"{value:.0%}"
    return f"{value:,.0f}" if unit == "count" else f"{value:g}"


def _filled(fix: str, budget: Mapping[str, float | bool | str | None]) -> str:
    return fix.format_map({name: _named(value) for name, value in budget.items()})


def _named(value: float | bool | str | None) -> float | bool | str:
    if value is None:
        return "(not known)"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
