"""Judges one reply by the rules of its eval item: passed, or every rule that it broke.

An empty reply never passes. A choice item is judged by the log-probability of its labels, not by the text; all
other rules that it has apply as well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from picochat_trainer.scoring.matching import answer_matches, echo_reasons, final_answers, holds, is_refusal
from picochat_trainer.scoring.overlap import repeated_share, rouge_l, token_f1, unique_word_share
from picochat_trainer.tuning.rows import EvalItem

MIN_CORPUS_SUPPORT: Final = 0.25


class Failure(StrEnum):
    EMPTY_REPLY = "empty_reply"
    MISSING_PHRASE = "missing_phrase"
    MISSING_ANY = "missing_any"  # of a group of phrases none was there
    MISSING_ENTITY = "missing_entity"
    FORBIDDEN_PHRASE = "forbidden_phrase"
    PROMPT_ECHO = "prompt_echo"
    LENGTH = "length"
    NO_CORPUS_SUPPORT = "no_corpus_support"
    WRONG_ANSWER = "wrong_answer"
    WRONG_CHOICE = "wrong_choice"
    NOT_REFUSED = "not_refused"  # answered what cannot be answered
    OVER_REFUSAL = "over_refusal"  # refused what can be answered
    PROMPT_TOO_LONG = "prompt_too_long"  # the model saw only its end


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model gave for one item."""

    text: str
    finish_reason: str = "stop"
    truncated: bool = False
    """The prompt did not fit the context."""
    label_log_probs: Mapping[str, float] | None = None
    """Mean log-probability per token of each choice label; choice items only."""
    corpus_support: float | None = None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One row of a report's `examples`."""

    line: int
    user: str
    category: str | None
    skill: str | None
    group: str | None
    split: str | None
    level: str
    stage: str | None
    answerable: bool
    reply: str
    reference: str | None
    passed: bool
    failures: tuple[Failure, ...]
    missing: tuple[str, ...]
    missing_any: tuple[tuple[str, ...], ...]
    missing_entities: tuple[str, ...]
    found_forbidden: tuple[str, ...]
    has_forbidden: bool
    """The item names phrases that must not come."""
    length_violations: tuple[str, ...]
    echo_reasons: tuple[str, ...]
    refused: bool
    final_answers: tuple[str, ...]
    answer_correct: bool | None
    """None where no final answer is required."""
    is_choice: bool
    choice_baseline: float | None
    """Chance of a blind guess."""
    choice_predicted: str | None
    choice_correct: bool | None
    choice_margin: float | None
    """Log-probability of the right label less that of the best other one."""
    choice_log_probs: dict[str, float] | None
    token_f1: float | None
    rouge_l: float | None
    corpus_support: float | None
    repeated_share: float
    unique_word_share: float
    num_words: int
    num_characters: int
    finish_reason: str


def judge(item: EvalItem, reply: Reply) -> Judgement:
    """Apply every rule of `item`."""
    text = reply.text.strip()
    missing = tuple(phrase for phrase in item.required_phrases if not holds(text, phrase))
    missing_any = tuple(group for group in item.must_include_any if not any(holds(text, p) for p in group))
    missing_entities = tuple(entity for entity in item.required_entities if not holds(text, entity))
    forbidden = tuple(phrase for phrase in item.must_not_include if holds(text, phrase))
    violations = _length_violations(item, text)
    echoes = echo_reasons(item.user, text)
    refused = is_refusal(text)
    answer_correct = answer_matches(text, item.accepted_answers) if item.normalized_answer_required else None
    choice = _choice(item, reply)
    unsupported = item.require_corpus_support and (reply.corpus_support or 0.0) < MIN_CORPUS_SUPPORT
    broken = {
        Failure.EMPTY_REPLY: not text,
        Failure.MISSING_PHRASE: bool(missing),
        Failure.MISSING_ANY: bool(missing_any),
        Failure.MISSING_ENTITY: bool(missing_entities),
        Failure.FORBIDDEN_PHRASE: bool(forbidden),
        Failure.PROMPT_ECHO: bool(echoes),
        Failure.LENGTH: bool(violations),
        Failure.NO_CORPUS_SUPPORT: unsupported,
        Failure.WRONG_ANSWER: answer_correct is False,
        Failure.WRONG_CHOICE: choice.correct is False,
        Failure.NOT_REFUSED: not item.answerable and not refused,
        Failure.OVER_REFUSAL: item.answerable and refused,
        Failure.PROMPT_TOO_LONG: reply.truncated,
    }
    failures = tuple(failure for failure, is_broken in broken.items() if is_broken)
    return Judgement(
        line=item.line,
        user=item.user,
        category=item.category,
        skill=item.skill,
        group=item.group,
        split=item.split,
        level=item.level or _level(item),
        stage=item.curriculum_stage,
        answerable=item.answerable,
        reply=reply.text,
        reference=item.reference,
        passed=not failures,
        failures=failures,
        missing=missing,
        missing_any=missing_any,
        missing_entities=missing_entities,
        found_forbidden=forbidden,
        has_forbidden=bool(item.must_not_include),
        length_violations=violations,
        echo_reasons=echoes,
        refused=refused,
        final_answers=final_answers(text),
        answer_correct=answer_correct,
        is_choice=item.is_choice,
        choice_baseline=1 / len(item.choice_labels) if item.is_choice else None,
        choice_predicted=choice.predicted,
        choice_correct=choice.correct,
        choice_margin=choice.margin,
        choice_log_probs=dict(reply.label_log_probs) if reply.label_log_probs is not None else None,
        token_f1=token_f1(text, item.reference) if item.reference else None,
        rouge_l=rouge_l(text, item.reference) if item.reference else None,
        corpus_support=reply.corpus_support,
        repeated_share=repeated_share(text),
        unique_word_share=unique_word_share(text),
        num_words=len(text.split()),
        num_characters=len(text),
        finish_reason=reply.finish_reason,
    )


@dataclass(frozen=True)
class _Choice:
    predicted: str | None = None
    correct: bool | None = None
    margin: float | None = None


def _choice(item: EvalItem, reply: Reply) -> _Choice:
    if not item.is_choice:
        return _Choice()
    scores = reply.label_log_probs
    if scores is None or set(scores) != set(item.choice_labels):
        raise ValueError(f"line {item.line}: a choice item needs the log-probability of each of its labels")
    assert item.correct_choice is not None  # EvalItem sees to it
    # A tie is no knowledge: the first label would win every item of a model that cannot tell them apart.
    right = scores[item.correct_choice]
    best_other = max(value for label, value in scores.items() if label != item.correct_choice)
    predicted = max(item.choice_labels, key=lambda label: (scores[label], label != item.correct_choice))
    return _Choice(predicted, right > best_other, right - best_other)


def _length_violations(item: EvalItem, text: str) -> tuple[str, ...]:
    sizes = {"words": len(text.split()), "chars": len(text)}
    found = []
    for unit, size in sizes.items():
        least, most = getattr(item, f"min_{unit}"), getattr(item, f"max_{unit}")
        if least is not None and size < least:
            found.append(f"{size} {unit}, at least {least}")
        if most is not None and size > most:
            found.append(f"{size} {unit}, at most {most}")
    return tuple(found)


def _level(item: EvalItem) -> str:
    """Rung of the eval ladder, from the words of split and category."""
    words = f"{item.split or ''} {item.category or ''}".casefold()
    rungs = {
        "smoke": "smoke",
        "memor": "memorization",
        "advers": "adversarial",
        "safety": "adversarial",
        "transfer": "transfer",
        "domain": "domain",
    }
    return next((rung for word, rung in rungs.items() if word in words), "heldout")
