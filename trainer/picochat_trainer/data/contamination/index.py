"""All items of a benchmark, ready to be looked for in documents."""

from collections.abc import Iterable

from picochat_trainer.data.contamination.measures import NEAR_THRESHOLD
from picochat_trainer.data.contamination.patterns import NGRAM, SEED, Gram, Item, build_patterns, grams


class ItemIndex:
    """What `scan` looks for. `near_threshold` is the share of an item that an edited copy must keep."""

    def __init__(self, items: Iterable[Item], *, near_threshold: float = NEAR_THRESHOLD) -> None:
        self.items = tuple(items)
        if len({item.key for item in self.items}) < len(self.items):
            raise ValueError("the keys of the items must differ")
        self.near_threshold = near_threshold
        self.patterns, self.pattern_of_item = build_patterns(self.items)
        self.ngrams: dict[Gram, list[tuple[int, int]]] = {}
        self.seeds: dict[Gram, list[tuple[int, int]]] = {}
        for number, pattern in enumerate(self.patterns):
            if pattern.parts:
                for size, table in ((NGRAM, self.ngrams), (SEED, self.seeds)):
                    for first, gram in enumerate(grams(pattern.tokens, size)):
                        table.setdefault(gram, []).append((number, first))
