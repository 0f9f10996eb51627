"""What of an item counts: its tokens, its n-grams, and which of those are only a template that many items share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from picochat_trainer.data.contamination.grams import SEED
from picochat_trainer.data.contamination.measures import LONG_NGRAM, NGRAM, Variant
from picochat_trainer.data.contamination.tokens import Tokens, tokenize
from picochat_trainer.data.normalize import words

NUMBER_WEIGHT: Final = 3.0
"""Weight of a number in an alignment: with all its numbers changed, an exercise is another one."""
MAX_REPEATS: Final = 4
"""An n-gram that one item repeats more often says nothing about it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt of a benchmark, with its answer if it has one. Keys are unique."""

    key: str
    prompt: str
    answer: str | None = None
    group: str = ""
    """The benchmark or file it is of: templates are counted within a group."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One variant of a pattern: the tokens of the prompt, or all."""

    variant: Variant
    tokens: tuple[str, ...]
    long_ngram: int
    """Tokens in a row that `ngram_any_13` asks for."""
    distinctive: frozenset[int]
    """Tokens that are in no template 8-gram; empty where n-grams say nothing and only the whole part counts."""
    ngrams: frozenset[int]
    """First tokens of the 8-grams that are no template."""
    template_seeds: Sequence[bool]
    """For each token, whether the seed that begins there is a template."""

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """Weight of each token in an alignment; empty where the part is too short or too general to align."""
        if len(self.tokens) < NGRAM:
            return ()
        return _weights(self.tokens, self.template_seeds[: len(self.tokens) - SEED + 1])


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """The text of one item, or of several equal ones."""

    prompt: str
    """Without white space around it."""
    answer: str
    """Empty where the items have none."""
    tokens: tuple[str, ...]
    """Of the prompt, then of the answer."""
    num_prompt: int
    parts: tuple[Part, ...]
    """What is searched for: the prompt, then prompt and answer; none where the item is too short."""

    @cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Of the tokens, in characters of the prompt, a line feed and the answer."""
        shift = len(self.prompt) + 1
        return [*_spans(tokenize(self.prompt), 0), *_spans(tokenize(self.answer), shift)]


def template_limit(num_prompts: int) -> int:
    """An n-gram in this many different prompts is a template: a tenth of the prompts, at least 4, at most 10.

    Ten is also the number of matches over which lm-evaluation-harness and NeMo Curator ignore an n-gram.
    """
    return max(4, min(10, num_prompts // 10))


def build_pattern(
    prompt: str,
    answer: str,
    lengths: Sequence[tuple[Variant, int]],
    template_ngrams: Sequence[bool],
    template_seeds: Sequence[bool],
) -> Pattern:
    """`lengths` are the parts in tokens; the templates tell for each token whether the n-gram that begins there is one."""
    of_prompt, of_answer = words(prompt), words(answer)
    tokens = (*of_prompt, *of_answer)
    return Pattern(
        prompt=prompt,
        answer=answer,
        tokens=tokens,
        num_prompt=len(of_prompt),
        parts=tuple(
            _part(variant, tokens[:length], template_ngrams, template_seeds) for variant, length in lengths
        ),
    )


def _spans(tokens: Tokens, shift: int) -> Iterator[tuple[int, int]]:
    return zip((tokens.starts + shift).tolist(), (tokens.ends + shift).tolist(), strict=True)


def _part(
    variant: Variant, tokens: tuple[str, ...], template_ngrams: Sequence[bool], template_seeds: Sequence[bool]
) -> Part:
    ngrams = template_ngrams[: max(0, len(tokens) - NGRAM + 1)]
    distinctive = _outside(ngrams, NGRAM, len(tokens)) if len(ngrams) else frozenset[int]()
    return Part(
        variant=variant,
        tokens=tokens,
        long_ngram=min(max(len(distinctive), NGRAM), LONG_NGRAM),
        distinctive=distinctive,
        ngrams=frozenset(first for first, template in enumerate(ngrams) if not template)
        if distinctive
        else frozenset(),
        template_seeds=template_seeds,
    )


def _weights(tokens: tuple[str, ...], template: Sequence[bool]) -> tuple[float, ...]:
    distinctive = _outside(template, SEED, len(tokens))
    weights = [NUMBER_WEIGHT if token.isdecimal() else 1.0 for token in tokens]
    total = sum(weights[place] for place in distinctive)
    if not total:
        return ()
    rest = sum(weights) - total
    # A template alone must never align: it gets at most half of the weight.
    share = min(1.0, total / rest) if rest else 1.0
    return tuple(weight if place in distinctive else weight * share for place, weight in enumerate(weights))


def _outside(template: Sequence[bool], size: int, length: int) -> frozenset[int]:
    """Tokens that are in no template n-gram."""
    if not any(template):
        return frozenset(range(length))
    inside = {first + step for first, generic in enumerate(template) if generic for step in range(size)}
    return frozenset(range(length)) - inside
