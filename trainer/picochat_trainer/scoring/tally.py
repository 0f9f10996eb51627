"""Counts judgements into scores: pass rates with sample size and 95 % Wilson interval, by every label.

A set with no members has `num_examples` 0 and the interval (0, 1): not measured, which a gate blocks on.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Literal

from picochat_contract.evidence import EvalEvidence, FitEvidence, Score, above_chance
from picochat_contract.stats import wilson_interval

from picochat_trainer.scoring.judgement import Judgement


def score_of(flags: Iterable[bool]) -> Score:
    """Score of a sample where True counts as passed."""
    sample = list(flags)
    passed, total = sum(sample), len(sample)
    low, high = wilson_interval(passed, total)
    rate = passed / total if total else 0.0
    return Score(num_examples=total, num_passed=passed, pass_rate=rate, low=low, high=high)


def scores_by(judgements: Sequence[Judgement], label: Callable[[Judgement], str | None]) -> dict[str, Score]:
    """Pass rate per label, in order of the label; judgements without one are left out."""
    sets: dict[str, list[bool]] = {}
    for judgement in judgements:
        name = label(judgement)
        if name is not None:
            sets.setdefault(name, []).append(judgement.passed)
    return {name: score_of(sets[name]) for name in sorted(sets)}


def fit_evidence(
    judgements: Sequence[Judgement], subject: str, rows: Literal["train", "heldout"]
) -> FitEvidence:
    return FitEvidence(
        rows=rows,
        subject=subject,
        overall=score_of(j.passed for j in judgements),
        groups=scores_by(judgements, lambda j: j.skill),
    )


def eval_evidence(
    judgements: Sequence[Judgement], subject: str, *, dirty_lines: Container[int] | None
) -> EvalEvidence:
    """`dirty_lines` are those of contaminated items; None where contamination was not measured: no item is then
    known to be clean."""
    baseline, adjusted = choice_above_chance(judgements)
    return EvalEvidence(
        subject=subject,
        overall=score_of(j.passed for j in judgements),
        clean=score_of(j.passed for j in judgements if dirty_lines is not None and j.line not in dirty_lines),
        non_choice=score_of(j.passed for j in judgements if not j.is_choice),
        groups=scores_by(judgements, lambda j: j.skill),
        choice=score_of(bool(j.choice_correct) for j in judgements if j.is_choice),
        choice_random_baseline=baseline,
        choice_accuracy_adjusted=adjusted,
        prompt_echo=score_of(bool(j.echo_reasons) for j in judgements),
        unsafe_refusal=score_of(j.refused for j in judgements if not j.answerable),
        benign_answered=score_of(not j.refused and bool(j.reply.strip()) for j in judgements if j.answerable),
        unsupported_claims=score_of(bool(j.found_forbidden) for j in judgements if j.has_forbidden),
    )


def headline_scores(evidence: EvalEvidence) -> dict[str, Score]:
    """The scores of the report's first table, and of the run summary."""
    return {
        "all items": evidence.overall,
        "clean items": evidence.clean,
        "non-choice": evidence.non_choice,
        **evidence.groups,
        "unanswerable items refused": evidence.unsafe_refusal,
        "answerable items answered": evidence.benign_answered,
        "prompt echo (less is better)": evidence.prompt_echo,
        "forbidden phrases (less is better)": evidence.unsupported_claims,
    }


def choice_above_chance(judgements: Sequence[Judgement]) -> tuple[float, float]:
    """Expected accuracy of guessing, and (accuracy - guessing) / (1 - guessing); (0, 0) without choice items."""
    choices = [j for j in judgements if j.is_choice]
    if not choices:
        return 0.0, 0.0
    baseline = fmean(j.choice_baseline or 0.0 for j in choices)
    accuracy = fmean(bool(j.choice_correct) for j in choices)
    return baseline, above_chance(accuracy, baseline)


def eval_summary(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Numbers beside the evidence: breakdowns and averages. An average over nothing is None."""
    choices = [j for j in judgements if j.is_choice]
    return {
        "num_examples": len(judgements),
        "num_passed": sum(j.passed for j in judgements),
        "answerable": _dump(score_of(j.passed for j in judgements if j.answerable)),
        "unanswerable": _dump(score_of(j.passed for j in judgements if not j.answerable)),
        "over_refusal": _dump(score_of(j.refused for j in judgements if j.answerable)),
        "empty_replies": _dump(score_of(not j.reply.strip() for j in judgements)),
        "cut_off_replies": _dump(score_of(j.finish_reason == "length" for j in judgements)),
        "length_violations": _dump(score_of(bool(j.length_violations) for j in judgements)),
        "average_token_f1": _mean(j.token_f1 for j in judgements),
        "average_rouge_l": _mean(j.rouge_l for j in judgements),
        "average_corpus_support": _mean(j.corpus_support for j in judgements),
        "average_choice_margin": _mean(j.choice_margin for j in choices),
        "average_repeated_share": _mean(j.repeated_share for j in judgements),
        "average_unique_word_share": _mean(j.unique_word_share for j in judgements),
        "average_words": _mean(float(j.num_words) for j in judgements),
        "by_category": _dump_all(scores_by(judgements, lambda j: j.category)),
        "by_split": _dump_all(scores_by(judgements, lambda j: j.split)),
        "by_level": _dump_all(scores_by(judgements, lambda j: j.level)),
        "by_stage": _dump_all(scores_by(judgements, lambda j: j.stage)),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None


def _dump(score: Score) -> dict[str, Any]:
    return score.model_dump(mode="json")


def _dump_all(scores: Mapping[str, Score]) -> dict[str, Any]:
    return {name: _dump(score) for name, score in scores.items()}
