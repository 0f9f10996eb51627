"""What a benchmark pack and a task mixture are made of."""

from enum import StrEnum
from typing import Final

from picochat_trainer.tuning.release_skills import SHARES
from picochat_trainer.tuning.shares import shares_among


class BenchmarkProfile(StrEnum):
    FULL = "full"  # all skills, rows about the pack's own corpus, and rows of the hub where asked for
    RELEASE_SKILLS = "release_skills"  # the five skills
    RELEASE_BEHAVIOR = "release_behavior"  # identity, refusal, choice
    BEHAVIOR = "behavior"  # identity, refusal
    WEAK_SKILLS = "weak_skills"  # what small models are worst at: math, spelling, choice


class TaskProfile(StrEnum):
    CAPABILITY = "capability"
    RELEASE = "release"
    RELEASE_SKILLS = "release_skills"
    BALANCED = "balanced"
    BENCHMARK = "benchmark"


class RowSource(StrEnum):
    OFFLINE = "offline"  # generators and the pack's own corpus
    HF = "hf"  # Hugging Face datasets, too
    AUTO = "auto"  # hf where they can be opened, else offline; the report says which and why


SKILLS_OF: Final[dict[BenchmarkProfile, tuple[str, ...]]] = {
    BenchmarkProfile.FULL: tuple(SHARES),
    BenchmarkProfile.RELEASE_SKILLS: tuple(SHARES),
    BenchmarkProfile.RELEASE_BEHAVIOR: ("identity", "refusal", "choice"),
    BenchmarkProfile.BEHAVIOR: ("identity", "refusal"),
    BenchmarkProfile.WEAK_SKILLS: ("math", "spelling", "choice"),
}
GROUNDED_SHARE: Final = 0.25
"""Of the profile full: rows about the pack's own corpus."""
MIXTURES: Final[dict[TaskProfile, dict[str, float]]] = {
    TaskProfile.RELEASE: {"release_behavior": 1.0},
    TaskProfile.RELEASE_SKILLS: {"release_skills": 1.0},
    TaskProfile.CAPABILITY: {"weak_skills": 0.72, "release_behavior": 0.28},
    TaskProfile.BALANCED: {"release_behavior": 0.25, "weak_skills": 0.45, "benchmark": 0.30},
    TaskProfile.BENCHMARK: {"benchmark": 1.0},
}


def profile_of(component: str) -> BenchmarkProfile:
    """The benchmark profile that a component of a mixture is made by."""
    return BenchmarkProfile.FULL if component == "benchmark" else BenchmarkProfile(component)


def skill_shares(profile: BenchmarkProfile) -> dict[str, float]:
    """Shares of the skills of a profile, as the release-skills pack weighs them."""
    return shares_among(SHARES, SKILLS_OF[profile])
