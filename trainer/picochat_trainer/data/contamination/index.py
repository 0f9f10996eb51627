"""All items of a benchmark, ready to be looked for in documents."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.contamination.grams import LONG_FROM, LONG_SEED, SEED, GramTable, gram_hashes
from picochat_trainer.data.contamination.layout import Counts, Layout, distinct_texts, lay_out
from picochat_trainer.data.contamination.measures import NEAR_THRESHOLD, NGRAM, Variant
from picochat_trainer.data.contamination.patterns import Item, Pattern, build_pattern
from picochat_trainer.data.contamination.tokens import Places

NEAR_SEEDS: Final = 0.2
"""Share of a pattern's seeds that a passage must hold to be aligned. Replacing one word in eight leaves over 0.3 of them."""


class ItemIndex:
    """What `scan` looks for. `near_threshold` is the share of an item that an edited copy must keep."""

    def __init__(self, items: Iterable[Item], *, near_threshold: float = NEAR_THRESHOLD) -> None:
        self.items = tuple(items)
        if len({item.key for item in self.items}) < len(self.items):
            raise ValueError("the keys of the items must differ")
        self.near_threshold = near_threshold
        self._texts, self.pattern_of_item = distinct_texts(self.items)
        self._patterns: dict[int, Pattern] = {}
        self.layout, ngram_counts, seed_counts = lay_out(self._texts)
        layout = self.layout
        self.max_tokens = int(layout.num_tokens[layout.searched].max(initial=0))
        grams = gram_hashes(layout.hashes)
        # Shorter patterns have neither n-grams nor edited copies: only their anchor is looked up.
        aligned = layout.searched & (layout.num_tokens >= NGRAM)
        long = aligned & (layout.shortest >= LONG_FROM)
        ngrams = aligned[layout.of_token] & ~layout.template_ngrams
        seeds = (aligned & ~long)[layout.of_token] & ~layout.template_seeds
        long_seeds = long[layout.of_token] & ~layout.template_long_seeds
        self.ngrams = _table(layout, grams.ngrams, NGRAM, ngrams, _anchors(layout, NGRAM, ngram_counts))
        self.seeds = _table(layout, grams.seeds, SEED, seeds, _anchors(layout, SEED, seed_counts))
        self.long_seeds = _table(layout, grams.long_seeds, LONG_SEED, long_seeds, np.zeros(0, np.int64))
        self.required_seeds = _required(layout, seeds, SEED) + _required(layout, long_seeds, LONG_SEED)
        """(P): how many seeds of each pattern a passage must hold to be aligned with it."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_patterns": {}}

    @property
    def num_patterns(self) -> int:
        return len(self._texts)

    def variants(self, number: int) -> list[tuple[Variant, int]]:
        """The parts of a pattern that are searched for, and their lengths in tokens."""
        layout = self.layout
        found = []
        if layout.has_prompt[number]:
            found.append((Variant.PROMPT, int(layout.num_prompt[number])))
        if layout.has_both[number]:
            found.append((Variant.PROMPT_ANSWER, int(layout.num_tokens[number])))
        return found

    def pattern(self, number: int) -> Pattern:
        """Made at the first call: most patterns are never found."""
        if number not in self._patterns:
            text, tokens = self._texts[number], slice(*self.layout.begins[number : number + 2])
            self._patterns[number] = build_pattern(
                text.prompt,
                text.answer,
                self.variants(number),
                self.layout.template_ngrams[tokens].tolist(),
                self.layout.template_seeds[tokens].tolist(),
            )
        return self._patterns[number]


def _table(
    layout: Layout, hashes: NDArray[np.uint64], size: int, counted: NDArray[np.bool_], anchors: Places
) -> GramTable:
    firsts = (np.arange(len(layout.of_token)) - layout.begins[layout.of_token]).astype(np.int32)
    counted &= firsts + np.int32(size) <= layout.num_tokens.astype(np.int32)[layout.of_token]
    whole = np.zeros(len(counted), np.bool_)
    whole[anchors] = True
    chosen = np.flatnonzero(counted | whole)
    return GramTable.build(
        hashes[chosen], layout.of_token[chosen], firsts[chosen], whole=whole[chosen], counted=counted[chosen]
    )


def _anchors(layout: Layout, size: int, counts: Counts) -> Places:
    """For every pattern that is found whole by grams of this size: the first token of its rarest gram."""
    lengths = np.where(layout.has_prompt, layout.num_prompt, layout.num_tokens)
    fits = (lengths >= NGRAM) if size == NGRAM else (lengths < NGRAM)
    chosen = np.flatnonzero(fits & layout.searched)
    if not len(chosen):
        return chosen
    begins = layout.begins[chosen]
    ends = begins + lengths[chosen] - size + 1
    # Rarest first, then leftmost; the last element only gives the last end something to point at.
    ranked = np.append((counts.astype(np.int64) << 32) | np.arange(len(counts)), np.iinfo(np.int64).max)
    return np.minimum.reduceat(ranked, np.stack([begins, ends], axis=1).ravel())[::2] & 0xFFFFFFFF


def _required(layout: Layout, counted: NDArray[np.bool_], size: int) -> Places:
    """(P): 0 for patterns without such seeds."""
    before = np.append(0, np.cumsum(counted))
    begins = layout.begins[:-1]
    usable = before[np.maximum(begins, begins + layout.shortest - size + 1)] - before[begins]
    return np.where(usable > 0, np.maximum(1, (usable * NEAR_SEEDS).astype(np.int64)), 0)
