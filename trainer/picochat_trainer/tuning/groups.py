"""Skill groups: which of the five release skills a row's category belongs to."""

from typing import Final

GROUP_PREFIXES: Final[dict[str, tuple[str, ...]]] = {
    "identity": ("identity",),
    "refusal": ("refusal",),
    "math": ("bench_math_", "gsm8k"),
    "spelling": ("bench_spelling_",),
    "choice": ("bench_choice", "mmlu_", "arc_"),
}


def skill_group(category: str | None) -> str | None:
    """identity, refusal, choice, math or spelling; None for a category of its own."""
    if category is None:
        return None
    return next((group for group, prefixes in GROUP_PREFIXES.items() if category.startswith(prefixes)), None)
