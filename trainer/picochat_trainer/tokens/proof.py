"""Evidence that a fast encoder gives the ids of the reference: awkward strings first, then a sample of the corpus.

The sample is drawn by seed over the whole corpus while the store is written; one different id and the store is
written again with the next encoder. A special id anywhere, in or out of the sample, counts as different.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.special import SPECIAL_TOKENS
from picochat_trainer.tokens.encoders import Encoded, Encoder, EncoderError, ReferenceEncoder

SAMPLE_DOCUMENTS: Final = 256
SAMPLE_BYTES: Final = 4_000_000  # what the reference encodes in about a second

AWKWARD: Final = (
    *SPECIAL_TOKENS,
    *(f"a{token}b {token}{token}\n" for token in SPECIAL_TOKENS),
    "".join(SPECIAL_TOKENS) * 3,
    "",
    " ",
    "\n",
    "\r\n\r\n  \r x\r\n",
    " \t \n \n\n  indented\n\ttab  end ",
    " " * 3000 + "x" + " " * 3000,
    "\n" * 2000,
    "\u00a0\u2003\u3000\u0085\u2028\u2029\u180e\u200b\ufeff x",
    "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "\u0301", "a\u0301\u0301 \u0308b \u20dd",  # combining marks, alone and stacked
    "\U0001f600\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea\ufe0f \u2764\ufe0f",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0661\u0662\u0663",
    "\u6771\u4eac\u90fd\u306f\u65e5\u672c\u3002 \ud55c\uad6d\uc5b4 \u0939\u093f\u0928\u094d\u0926\u0940",
    "\U00010348\U0001d54f\U0001d7d9 \U000e0041\U0010ffff \ufffd\ufffe",
    "1234567 3.14 \u00bd \u2167 \u4e00\u4e8c",
    "IT'S I'LL we'Ve 'S '\u017f \u017f'\u017f don't'd",
    "!!!???\n\n...--- <|<|im_start|>|> |> <| \\ \" '' ``",
    "a" * 3000 + "\u00e9" * 1000,
)  # fmt: skip


class Proof:
    """Compares one encoder with the reference; raises EncoderError at the first difference."""

    def __init__(
        self, encoder: Encoder, tokenizer: Tokenizer, *, seed: int, num_documents: int, num_bytes: int
    ) -> None:
        self._encoder = encoder
        self._reference = ReferenceEncoder(tokenizer)
        self._rng = np.random.default_rng([seed, 1])
        self._chance = min(SAMPLE_DOCUMENTS / max(num_documents, 1), SAMPLE_BYTES / max(num_bytes, 1))
        self._is_special = np.zeros(tokenizer.vocab_size, dtype=np.bool_)
        self._is_special[list(tokenizer.special_ids)] = True
        self._bytes_left = SAMPLE_BYTES
        self.sample_documents = 0
        """Documents, or pieces of very long ones, that were compared."""

    def check_awkward(self) -> None:
        """Compare the strings on which encoders differ most easily."""
        if self._encoder.name == self._reference.name:
            return
        self._compare(AWKWARD, self._encoder.encode(AWKWARD).rows())

    def check(self, texts: Sequence[str], encoded: Encoded) -> None:
        """Look for special ids in all of `encoded`, and compare a few of the texts."""
        if len(encoded.lengths) != len(texts) or encoded.lengths.sum() != len(encoded.ids):
            raise EncoderError(
                f"{self._encoder.name} gave ids of {len(encoded.lengths)} texts for {len(texts)}"
            )
        if encoded.ids.size and encoded.ids.max() >= len(self._is_special):
            raise EncoderError(f"{self._encoder.name} gave the id {encoded.ids.max()}, which no token has")
        if encoded.ids.size and self._is_special[encoded.ids].any():
            raise EncoderError(f"{self._encoder.name} made a special token out of text")
        if self._encoder.name == self._reference.name:
            return
        chosen = np.flatnonzero(self._rng.random(len(texts)) < self._chance)
        if not self.sample_documents:
            chosen = np.union1d(chosen, [0])
        kept: list[int] = []
        for index in chosen.tolist():
            if self._bytes_left > 0:
                self._bytes_left -= len(texts[index].encode())
                kept.append(index)
        self._compare([texts[i] for i in kept], encoded.rows(kept))
        self.sample_documents += len(kept)

    def _compare(self, texts: Sequence[str], found: Sequence[np.ndarray]) -> None:
        wanted = self._reference.encode(texts).rows()
        for text, right, wrong in zip(texts, wanted, found, strict=True):
            if not np.array_equal(right, wrong):
                raise EncoderError(
                    f"{self._encoder.name} {self._encoder.version} gives other ids than {self._reference.name} for "
                    f"{_first_difference(text, right, wrong)}"
                )


def _first_difference(text: str, right: np.ndarray, wrong: np.ndarray) -> str:
    length = min(len(right), len(wrong))
    differs = np.flatnonzero(right[:length] != wrong[:length])
    at = int(differs[0]) if differs.size else length
    return f"{text[:40]!r}: token {at} is {right[at : at + 3].tolist()} there and {wrong[at : at + 3].tolist()} here"
