"""Which documents train and which are held out, decided from sizes and digests alone; no text is read.

Documents whose texts differ by nothing but white space stay on one side. Which are held out follows from the seed and
their texts, so that another order of the corpus, or a few documents more, hardly changes it. Extra documents, such as
canaries, train only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.tokens.store import TokenStore
from picochat_trainer.training.order import mix
from picochat_trainer.training.tokens import Spans, SpanTokens, TokenSpace, concatenated

_HOLDOUT_OVERSHOOT = (
    1.25  # a document that would make validation larger than this times its target is passed over
)
_PLACES_STREAM = 7  # of the random numbers that place extra documents


@dataclass(frozen=True, kw_only=True)
class ExtraDocument:
    """A document that is no part of the corpus and is put into the training side `repeats` times."""

    tokens: tuple[int, ...]
    """With its BOS."""
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class Split:
    """Both sides as spans of one space of tokens."""

    space: TokenSpace
    train: Spans
    """One span per document, extra documents among them."""
    val: Spans
    mode: Literal["document", "window"]
    note: str | None
    """Why the mode is not the one asked for, or None."""
    held_out: NDArray[np.int64]
    """Indices of the documents that are held out whole, rising; empty where the mode is `window`."""
    corpus_train: Spans
    """The training side without extra documents."""

    @property
    def num_extra(self) -> int:
        """Extra documents on the training side, repeats counted."""
        return len(self.train) - len(self.corpus_train)

    @property
    def train_tokens(self) -> SpanTokens:
        return SpanTokens(self.space, self.train)

    @property
    def val_tokens(self) -> SpanTokens:
        return SpanTokens(self.space, self.val)

    def with_extra(self, extra: Sequence[ExtraDocument], seed: int) -> "Split":
        """The same split with extra documents at seeded places of its training side."""
        tokens, lengths = concatenated([document.tokens for document in extra], self.space.dtype)
        repeats = [document.repeats for document in extra]
        address = self.space.extra_address
        return replace(
            self,
            space=self.space.with_extra(tokens),
            train=_with_extra(self.corpus_train, lengths, repeats, address, seed),
        )


def split_store(
    store: TokenStore,
    *,
    val_fraction: float,
    mode: Literal["document", "window"],
    seed: int,
) -> Split:
    """Hold out validation documents, or the end of each document where mode is `window`."""
    starts, lengths = store.offsets[:-1], np.diff(store.offsets)
    held_out = np.empty(0, dtype=np.int64)
    if mode == "document":
        held_out = hold_out_documents(store.document_bytes, store.document_digests, val_fraction, seed)
    if len(held_out):
        trains = np.ones(len(lengths), dtype=np.bool_)
        trains[held_out] = False
        train = Spans(addresses=starts[trains], lengths=lengths[trains])
        val = Spans(addresses=starts[held_out], lengths=lengths[held_out])
    else:
        kept = lengths - np.rint((lengths - 1) * val_fraction).astype(np.int64)
        train = Spans(addresses=np.asarray(starts), lengths=kept)
        val = Spans(addresses=starts + kept, lengths=lengths - kept)
    return Split(
        space=TokenSpace(store),
        train=train,
        val=val,
        mode="document" if len(held_out) else "window",
        note=None
        if mode == "window" or len(held_out)
        else "the corpus has only one distinct document, so its last part is held out: validation text and "
        "training text come from the same document",
        held_out=held_out,
        corpus_train=train,
    )


def hold_out_documents(
    sizes: NDArray[np.int64], digests: NDArray[np.uint64], val_fraction: float, seed: int
) -> NDArray[np.int64]:
    """Pick whole documents: about `val_fraction` of the bytes; none where all texts are equal."""
    texts, text_of = np.unique(digests, return_inverse=True)
    if len(texts) < 2:
        return np.empty(0, dtype=np.int64)
    text_sizes = np.bincount(text_of, weights=sizes, minlength=len(texts)).astype(np.int64)
    key = np.random.default_rng([seed, len("holdout")]).integers(0, 1 << 63, dtype=np.uint64)
    order = np.argsort(mix(texts ^ key), kind="stable")
    target = val_fraction * float(np.sum(sizes))
    chosen = _up_to(order[:-1], text_sizes, target)  # the last one always trains
    chosen = _with_larger(chosen, order, text_sizes, target)
    if not len(chosen):
        chosen = np.array([text_sizes.argmin()])
    held_out = np.zeros(len(texts), dtype=np.bool_)
    held_out[chosen] = True
    return np.flatnonzero(held_out[text_of])


def _up_to(order: NDArray[np.int64], sizes: NDArray[np.int64], target: float) -> NDArray[np.int64]:
    """Take in order until `target` is reached, passing over what would overshoot it by too much."""
    limit = _HOLDOUT_OVERSHOOT * target
    taken, chosen = 0, []
    rest = order
    while taken < target and len(rest := rest[sizes[rest] <= limit - taken]):
        total = taken + np.cumsum(sizes[rest])
        reaching = int(np.searchsorted(total, target))  # the first of these alone is below the limit
        count = reaching + 1 if reaching < len(rest) and total[reaching] <= limit else reaching
        chosen.append(rest[:count])
        taken, rest = int(total[count - 1]), rest[count:]
    return np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)


def _with_larger(
    chosen: NDArray[np.int64], order: NDArray[np.int64], sizes: NDArray[np.int64], target: float
) -> NDArray[np.int64]:
    """Take one of the texts that were passed over, too, where that comes nearer to `target` and leaves half to train.

    Else a few large documents beside a scrap would be validated on the scrap.
    """
    taken = float(sizes[chosen].sum())
    if taken >= target:
        return chosen
    passed = order[~np.isin(order, chosen)]
    totals = taken + sizes[passed]
    fits = (totals > taken) & (2 * totals <= sizes.sum())
    passed, totals = passed[fits], totals[fits]
    if not len(passed):
        return chosen
    best = np.abs(np.log(totals / target)).argmin()
    nearer = totals[best] * taken < target * target  # as a ratio, whichever way it is off
    return np.append(chosen, passed[best]) if nearer else chosen


def _with_extra(
    spans: Spans, lengths: NDArray[np.int64], repeats: Sequence[int], address: int, seed: int
) -> Spans:
    """Put each extra document, as often as it is wanted, at random places between the others."""
    if not len(lengths):
        return spans
    addresses = address + np.cumsum(lengths) - lengths
    which = np.repeat(np.arange(len(lengths)), repeats)
    rng = np.random.default_rng([seed, _PLACES_STREAM])
    which = rng.permutation(which)
    places = np.sort(rng.integers(0, len(spans) + 1, size=len(which)))
    return Spans(
        addresses=np.insert(spans.addresses, places, addresses[which]),
        lengths=np.insert(spans.lengths, places, lengths[which]),
    )
