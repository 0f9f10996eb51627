"""Items to look for, and what of each counts: their tokens, their n-grams, and which of those are only a template."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from picochat_trainer.data.contamination.measures import (
    LONG_NGRAM,
    MIN_LETTERS,
    MIN_TOKENS,
    NGRAM,
    UNSPACED_LETTERS,
    Variant,
)
from picochat_trainer.data.normalize import is_unspaced, words

SEED: Final = 4
"""Tokens of the n-grams that edited copies are found by: of 8 tokens with one replaced, 4 in a row are left."""
NUMBER_WEIGHT: Final = 3.0
"""Weight of a number in an alignment: with all its numbers changed, an exercise is another one."""
Gram = tuple[str, ...]


@dataclass(frozen=True)
class Item:
    """One prompt of a benchmark, with its answer if it has one. Keys are unique."""

    key: str
    prompt: str
    answer: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """One variant of a pattern: its first `num_tokens` tokens."""

    variant: Variant
    num_tokens: int
    long_ngram: int
    """Tokens in a row that `ngram_any_13` asks for."""
    distinctive: frozenset[int]
    """Tokens that are in no template 8-gram; empty where n-grams say nothing and only the whole item counts."""
    ngrams: frozenset[int]
    """First tokens of the 8-grams that are no template."""
    weights: tuple[float, ...]
    """Weight of each token in an alignment; empty where the part is too short or too generic to align."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """The distinct text of one item or of several equal ones."""

    prompt: str
    """Without white space around it."""
    answer: str
    """Empty where the items have none."""
    tokens: tuple[str, ...]
    """Of the prompt, then of the answer."""
    num_prompt: int
    parts: tuple[Part, ...]
    """What is searched for: the prompt, then prompt and answer; empty where the item is too short."""


def template_limit(num_prompts: int) -> int:
    """An n-gram in this many different prompts is a template: a tenth of the prompts, at least 4, at most 10.

    Ten is also the number of matches over which lm-evaluation-harness and NeMo Curator ignore an n-gram.
    """
    return max(4, min(10, num_prompts // 10))


def build_patterns(items: Sequence[Item]) -> tuple[list[Pattern], list[int]]:
    """The distinct patterns, and for each item the number of its pattern."""
    numbers: dict[tuple[str, str], int] = {}
    of_item = []
    for item in items:
        text = (item.prompt.strip(), (item.answer or "").strip())
        of_item.append(numbers.setdefault(text, len(numbers)))
    tokens = [(tuple(words(prompt)), tuple(words(answer))) for prompt, answer in numbers]
    ngrams, seeds = _templates(tokens, NGRAM), _templates(tokens, SEED)
    patterns = [
        Pattern(
            prompt=prompt,
            answer=answer,
            tokens=of_prompt + of_answer,
            num_prompt=len(of_prompt),
            parts=tuple(_parts(of_prompt, of_answer, ngrams, seeds)),
        )
        for (prompt, answer), (of_prompt, of_answer) in zip(numbers, tokens, strict=True)
    ]
    return patterns, of_item


def grams(tokens: Gram, size: int) -> Iterator[Gram]:
    for start in range(len(tokens) - size + 1):
        yield tokens[start : start + size]


def _templates(tokens: list[tuple[Gram, Gram]], size: int) -> set[Gram]:
    of_prompt: dict[Gram, set[Gram]] = {}
    for prompt, answer in tokens:
        of_prompt.setdefault(prompt, set()).update(grams(prompt + answer, size))
    counts = Counter(gram for found in of_prompt.values() for gram in found)
    limit = template_limit(len(of_prompt))
    return {gram for gram, count in counts.items() if count >= limit}


def _parts(prompt: Gram, answer: Gram, ngrams: set[Gram], seeds: set[Gram]) -> Iterator[Part]:
    if _searchable(prompt):
        yield _part(Variant.PROMPT, prompt, ngrams, seeds)
    if answer and _searchable(prompt + answer):
        yield _part(Variant.PROMPT_ANSWER, prompt + answer, ngrams, seeds)


def _part(variant: Variant, tokens: Gram, ngrams: set[Gram], seeds: set[Gram]) -> Part:
    template = [gram in ngrams for gram in grams(tokens, NGRAM)]
    distinctive = _outside(template, NGRAM, len(tokens)) if template else frozenset()
    return Part(
        variant=variant,
        num_tokens=len(tokens),
        long_ngram=min(max(len(distinctive), NGRAM), LONG_NGRAM),
        distinctive=distinctive,
        ngrams=frozenset(start for start, generic in enumerate(template) if not generic),
        weights=_weights(tokens, seeds) if len(tokens) >= NGRAM else (),
    )


def _weights(tokens: Gram, seeds: set[Gram]) -> tuple[float, ...]:
    distinctive = _outside([gram in seeds for gram in grams(tokens, SEED)], SEED, len(tokens))
    weights = [NUMBER_WEIGHT if token.isdecimal() else 1.0 for token in tokens]
    total = sum(weights[place] for place in distinctive)
    rest = sum(weights) - total
    # A template alone must never align: it gets at most half of the weight.
    share = min(1.0, total / rest) if rest else 1.0
    return (
        tuple(weight if place in distinctive else weight * share for place, weight in enumerate(weights))
        if total
        else ()
    )


def _outside(template: list[bool], size: int, length: int) -> frozenset[int]:
    """Tokens that are in no template n-gram."""
    inside = {start + step for start, generic in enumerate(template) if generic for step in range(size)}
    return frozenset(range(length)) - inside


def _searchable(tokens: Gram) -> bool:
    letters = sum(UNSPACED_LETTERS if is_unspaced(token) else len(token) for token in tokens)
    return len(tokens) >= MIN_TOKENS and letters >= MIN_LETTERS
