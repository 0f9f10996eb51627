"""The part of a corpus that a tokenizer is trained on: all of it, or pieces drawn evenly from everywhere in it.

More text than `TRAINING_BYTES` hardly changes the merges and costs the trainer memory and minutes (about 8 MB/s).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer.cutting import cut

TRAINING_BYTES: Final = 256 << 20
PIECE_CHARACTERS: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class TextSample:
    """Iterates over the texts of the sample; each time the same ones."""

    corpus: CorpusStore
    seed: int
    share: float
    """Chance of a piece to be taken, 1 for all."""

    def __iter__(self) -> Iterator[str]:
        rng = np.random.default_rng([self.seed, 2])
        for document in self.corpus.documents():
            for piece in cut(document.text, PIECE_CHARACTERS):
                if self.share >= 1 or rng.random() < self.share:
                    yield piece

    def describe(self) -> str:
        return "all of the corpus" if self.share >= 1 else f"{self.share:.1%} of the corpus"


def sample_texts(corpus: CorpusStore, seed: int, *, max_bytes: int = TRAINING_BYTES) -> TextSample:
    """A sample of about `max_bytes` of UTF-8 text."""
    return TextSample(corpus=corpus, seed=seed, share=min(1.0, max_bytes / max(corpus.num_bytes, 1)))
