"""Task mixtures: benchmark profiles in fixed proportions, each row tagged with the component that it was made for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from picochat_trainer.tuning.packs.generated import Made, RowOptions, make_rows
from picochat_trainer.tuning.packs.hub_rows import R
from picochat_trainer.tuning.packs.profiles import (
    MIXTURES,
    BenchmarkProfile,
    RowSource,
    TaskProfile,
    profile_of,
)
from picochat_trainer.tuning.shares import apportioned


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The rows of a mixture and how many each component gave."""

    made: Made
    shares: Mapping[str, float]
    sft_counts: Mapping[str, int]
    eval_counts: Mapping[str, int]


def make_mixture(profile: TaskProfile, num_sft: int, num_eval: int, options: RowOptions) -> Mixture:
    """Rows of every component; prompts are disjoint within and between the sides."""
    shares = MIXTURES[profile]
    has_hub_rows = any(profile_of(component) is BenchmarkProfile.FULL for component in shares)
    sft_counts, eval_counts = apportioned(num_sft, shares), apportioned(num_eval, shares)
    made = Made()
    for component in shares:
        part = profile_of(component)
        is_generated = has_hub_rows and part is not BenchmarkProfile.FULL
        chat_before, eval_before = len(made.chat), len(made.eval)
        make_rows(
            part,
            sft_counts[component],
            eval_counts[component],
            replace(options, source=RowSource.OFFLINE) if is_generated else options,
            made,
            name=component,
        )
        tags = {
            "mixture_profile": profile.value,
            "mixture_component": component,
            "mixture_benchmark_profile": part.value,
        }
        made.chat[chat_before:] = _tagged(made.chat[chat_before:], tags)
        made.eval[eval_before:] = _tagged(made.eval[eval_before:], tags)
    return Mixture(made=made, shares=shares, sft_counts=sft_counts, eval_counts=eval_counts)


def _tagged(rows: Sequence[R], tags: Mapping[str, str]) -> list[R]:
    return [row.model_copy(update=tags) for row in rows]
