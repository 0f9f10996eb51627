"""The named measures of contamination, each with its threshold and source.

All are counted in the word tokens of `data.normalize`. Two things are our own in each published rule. An n-gram that many
items share (`patterns.template_limit`) is a template, not a leak: it and its tokens are left out of numerator and
denominator. And an item that is found whole scores 1 in every measure, which defines items shorter than the n-gram.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

NGRAM: Final = 8
"""Tokens of the n-grams that coverage is counted in."""
LONG_NGRAM: Final = 13
MIN_TOKENS: Final = 4
"""Items with fewer tokens are not searched for: any large text holds them."""
MIN_LETTERS: Final = 9
"""Characters without spaces; one of a script without spaces counts as `UNSPACED_LETTERS`."""
UNSPACED_LETTERS: Final = 2
NEAR_THRESHOLD: Final = 0.75


class Variant(StrEnum):
    """Which part of an item is looked for."""

    PROMPT = "prompt"
    PROMPT_ANSWER = "prompt_answer"  # the answer directly after the prompt


class Name(StrEnum):
    """Names of the measures, strongest evidence first."""

    EXACT = "exact"
    NORMALISED = "normalised"
    LONGEST_MATCH_8 = "longest_match_8"
    TULU50_8 = "tulu50_8"
    NGRAM_ANY_13 = "ngram_any_13"
    PALM70_8 = "palm70_8"
    NEAR = "near"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A rule that calls an item contaminated or not."""

    threshold: float
    """Share from which on an item counts as contaminated."""
    above: bool = False
    """The share must be over the threshold; equal is not enough."""
    source: str
    description: str

    def hit(self, value: float) -> bool:
        return value > self.threshold if self.above else value >= self.threshold


MEASURES: Final[Mapping[str, Measure]] = MappingProxyType(
    {
        Name.EXACT: Measure(
            threshold=1.0,
            source="verbatim text",
            description="the item's text stands in a document, character by character",
        ),
        Name.NORMALISED: Measure(
            threshold=1.0,
            source="NFKC and case folding, punctuation stripped (data/normalize.py)",
            description="the item's tokens stand in a document one after the other, bounded by word edges",
        ),
        Name.NGRAM_ANY_13: Measure(
            threshold=1.0,
            source="GPT-3, arXiv 2005.14165, appendix C",
            description="any 13 tokens in a row (for shorter items their length, at least 8) stand in a document",
        ),
        Name.PALM70_8: Measure(
            threshold=0.7,
            source="PaLM, arXiv 2204.02311, section 8",
            description="share of the item's 8-grams that stand anywhere in the documents",
        ),
        Name.TULU50_8: Measure(
            threshold=0.5,
            above=True,
            source="Tulu 3, arXiv 2411.15124, section 3.2",
            description="share of the item's tokens inside 8-grams that stand in one document",
        ),
        Name.LONGEST_MATCH_8: Measure(
            threshold=0.5,
            above=True,
            source="ConTAM, arXiv 2411.03923 (n 8, mincount 1, no skips; it sweeps the threshold, 0.5 is ours)",
            description="longest run of the item's tokens that stands in a document, as a share of the item",
        ),
        Name.NEAR: Measure(
            threshold=NEAR_THRESHOLD,
            source="own: longest common subsequence of tokens in a window of the item's length; a number weighs three words",
            description="share of the item that aligns with a passage: finds edited copies",
        ),
    }
)


def measures(near_threshold: float) -> dict[str, Measure]:
    """`MEASURES` with this threshold for `near`."""
    return {**MEASURES, Name.NEAR: replace(MEASURES[Name.NEAR], threshold=near_threshold)}
