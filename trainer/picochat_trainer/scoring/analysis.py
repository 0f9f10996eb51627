"""Why replies failed: clusters, weak sets, and what to do about the most frequent cause."""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from picochat_trainer.scoring.judgement import Failure, Judgement
from picochat_trainer.scoring.tally import scores_by

WEAK_RATE: Final = 0.80
DEGENERATE_SHARE: Final = 0.25  # of 3-word runs that repeat
MAX_FAILED_LISTED: Final = 50


class Cluster(StrEnum):
    """Kinds of failure, most telling first: a reply belongs to the first that fits."""

    PROMPT_TOO_LONG = "prompt_too_long"
    EMPTY = "empty_reply"
    FORMAT = "prompt_format_failure"
    DEGENERATE = "degenerate_generation"
    REFUSAL = "refusal_failure"
    FORBIDDEN = "unsupported_or_forbidden"
    CHOICE = "choice_mismatch"
    CONTENT = "content_mismatch"
    LENGTH = "length_control"


RECOMMENDATIONS: Final[dict[Cluster, tuple[str, str]]] = {
    Cluster.PROMPT_TOO_LONG: (
        "prompts do not fit the context",
        "raise base.model.sequence_len or shorten them",
    ),
    Cluster.EMPTY: ("replies are empty", "train SFT longer; check that rows have answers"),
    Cluster.FORMAT: (
        "replies echo the prompt or the chat format",
        "check the chat template and train SFT longer",
    ),
    Cluster.DEGENERATE: ("replies repeat themselves", "train base longer or on more varied text"),
    Cluster.REFUSAL: (
        "it refuses the wrong items",
        "balance refusal rows with answerable ones of the same form",
    ),
    Cluster.FORBIDDEN: (
        "replies hold forbidden phrases",
        "add rows that show the right answer for such prompts",
    ),
    Cluster.CHOICE: ("wrong options are preferred", "more choice rows, or base text with the facts"),
    Cluster.CONTENT: (
        "expected phrases or answers are missing",
        "look at SFT fit first: if that is low, train SFT longer; else add varied rows",
    ),
    Cluster.LENGTH: ("right content at the wrong length", "give SFT answers of the wanted length"),
}

_CONTENT_FAILURES: Final = frozenset(
    {
        Failure.MISSING_PHRASE,
        Failure.MISSING_ANY,
        Failure.MISSING_ENTITY,
        Failure.WRONG_ANSWER,
        Failure.NO_CORPUS_SUPPORT,
    }
)


def cluster_of(judgement: Judgement) -> Cluster:
    """The cluster of a failed reply."""
    failures = set(judgement.failures)
    if not failures:
        raise ValueError(f"line {judgement.line} passed")
    if Failure.PROMPT_TOO_LONG in failures:
        return Cluster.PROMPT_TOO_LONG
    if Failure.EMPTY_REPLY in failures:
        return Cluster.EMPTY
    if Failure.PROMPT_ECHO in failures:
        return Cluster.FORMAT
    if judgement.repeated_share > DEGENERATE_SHARE:
        return Cluster.DEGENERATE
    if failures & {Failure.NOT_REFUSED, Failure.OVER_REFUSAL}:
        return Cluster.REFUSAL
    if Failure.FORBIDDEN_PHRASE in failures:
        return Cluster.FORBIDDEN
    if Failure.WRONG_CHOICE in failures:
        return Cluster.CHOICE
    return Cluster.CONTENT if failures & _CONTENT_FAILURES else Cluster.LENGTH


def analyse(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """The `analysis` part of a report."""
    failed = [judgement for judgement in judgements if not judgement.passed]
    clusters = Counter(cluster_of(judgement) for judgement in failed)
    return {
        "failure_counts": _by_count(Counter(failure for j in failed for failure in j.failures)),
        "cluster_counts": _by_count(clusters),
        "failed_lines": [j.line for j in failed[:MAX_FAILED_LISTED]],
        "weak_skills": _weak(judgements, "skill"),
        "weak_categories": _weak(judgements, "category"),
        "weak_levels": _weak(judgements, "level"),
        "recommendations": [
            {
                "priority": priority,
                "area": cluster.value,
                "message": f"{count} of {len(judgements)}: {RECOMMENDATIONS[cluster][0]}",
                "action": RECOMMENDATIONS[cluster][1],
            }
            for priority, (cluster, count) in enumerate(clusters.most_common(), start=1)
        ],
    }


def _weak(judgements: Sequence[Judgement], label: str) -> list[str]:
    """Labels under WEAK_RATE, worst first."""
    scores = scores_by(judgements, lambda judgement: getattr(judgement, label))
    weak = [name for name, score in scores.items() if score.pass_rate < WEAK_RATE]
    return sorted(weak, key=lambda name: scores[name].pass_rate)


def _by_count(counts: Counter[Any]) -> dict[str, int]:
    return {str(name): count for name, count in counts.most_common()}
