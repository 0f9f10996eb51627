"""Bits per byte on held-out text, exact, beside what a unigram model of the same tokens reaches.

Bits per byte compares models with different tokenizers. Windows are fixed and do not overlap; every token but the
special ones (which stand for no bytes) is scored once. The standard error is over documents, or over windows where there
are too few documents to tell.

B rows, T tokens
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from picochat_contract.holdout import MAX_VAL_TOKENS
from torch import Tensor

from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training import distributed
from picochat_trainer.training.tokens import TokenSource, token_counts
from picochat_trainer.training.validation import Validation, ratio

MIN_DOCUMENTS: Final = 30
"""Fewer give no usable standard error: it is then over windows, as if those were drawn one by one."""
_PADDING: Final = -1  # the start of a row that only fills up a batch


@dataclass(frozen=True, kw_only=True)
class Windows:
    """One batch."""

    tokens: Tensor
    """(B, T), int64; so are the targets."""
    targets: Tensor
    clusters: NDArray[np.int64]
    """(B, T): the document, or the window, that each target belongs to."""


class BpbValidator:
    """Scores a model on fixed windows of the validation tokens; each rank takes its share, in equally many batches.

    `document_starts` are the places in `tokens` at which documents begin.
    """

    def __init__(
        self,
        tokens: TokenSource,
        token_bytes: Sequence[int],
        *,
        sequence_len: int,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
        document_starts: NDArray[np.int64] | None = None,
        max_tokens: int = MAX_VAL_TOKENS,
    ) -> None:
        self._tokens = tokens
        self._bytes = np.asarray(token_bytes, dtype=np.int64)
        self._sequence_len = sequence_len
        self._starts = window_starts(len(tokens), sequence_len, max_tokens)
        self._shares = _shares(self._starts, world_size)
        self._rank = rank
        self._batch_rows = min(batch_rows, self._shares.shape[1])
        starts = np.empty(0, dtype=np.int64) if document_starts is None else document_starts
        self.clusters: Literal["documents", "windows"] = (
            "documents" if self._count_documents(starts) >= MIN_DOCUMENTS else "windows"
        )
        """What the standard error is over."""
        self._cluster_starts = starts if self.clusters == "documents" else self._starts

    @property
    def num_targets(self) -> int:
        """Tokens that are scored."""
        return sum(int((window.targets != IGNORE_INDEX).sum()) for window in self._windows(self._starts))

    @torch.no_grad()
    def __call__(self, model: GPT) -> Validation:
        device = next(model.parameters()).device
        count = len(self._cluster_starts)
        nats = torch.zeros(count, dtype=torch.float64, device=device)
        targets, num_bytes = np.zeros(count), np.zeros(count)
        for window in self._windows(self._shares[self._rank]):
            losses_BT = model.token_losses(window.tokens.to(device), window.targets.to(device))
            clusters_BT = torch.from_numpy(window.clusters).to(device)
            nats.index_add_(0, clusters_BT.flatten(), losses_BT.flatten().double())
            scored = (window.targets != IGNORE_INDEX).numpy()
            targets += np.bincount(window.clusters[scored], minlength=count)
            sizes = self._bytes[window.targets.numpy()[scored]]
            num_bytes += np.bincount(window.clusters[scored], weights=sizes, minlength=count)
        sums = [*nats.tolist(), *targets.tolist(), *num_bytes.tolist()]
        totals, counts, sizes = np.array(distributed.sum_over_ranks(sums)).reshape(3, count)
        loss, loss_stderr = ratio(totals, counts)
        bpb, bpb_stderr = ratio(totals / math.log(2), sizes)
        return Validation(loss=loss, bpb=bpb, loss_stderr=loss_stderr, bpb_stderr=bpb_stderr)

    def unigram_bpb(self, train_tokens: TokenSource) -> float:
        """Bits per byte of token frequencies in `train_tokens`, add-one smoothed, on the same targets."""
        counts = token_counts(train_tokens, len(self._bytes)).astype(np.float64)
        scored = self._bytes > 0
        log_probs = np.log((counts[scored] + 1) / (counts[scored].sum() + scored.sum()))
        nats_of = np.zeros(len(self._bytes))
        nats_of[scored] = -log_probs
        nats = num_bytes = 0.0
        for window in self._windows(self._starts):
            targets = window.targets[window.targets != IGNORE_INDEX].numpy()
            nats += float(nats_of[targets].sum())
            num_bytes += int(self._bytes[targets].sum())
        return nats / (math.log(2) * num_bytes)

    def _count_documents(self, starts: NDArray[np.int64]) -> int:
        """Documents with a target in one of the windows."""
        if not len(starts):
            return 0
        ends = np.minimum(self._starts + self._sequence_len, len(self._tokens) - 1)
        first = np.searchsorted(starts, self._starts + 1, side="right")
        last = np.searchsorted(starts, ends, side="right")
        touched = np.zeros(len(starts) + 2, dtype=np.int64)
        np.add.at(touched, first, 1)
        np.add.at(touched, last + 1, -1)
        return int((np.cumsum(touched) > 0).sum())

    def _windows(self, starts: NDArray[np.int64]) -> Iterator[Windows]:
        """Yield batches of equal shape; what is past the end, or only fills up, is padded with ignored targets."""
        length = self._sequence_len + 1
        for first in range(0, len(starts), self._batch_rows):
            rows = starts[first : first + self._batch_rows]
            rows = np.append(rows, np.full(self._batch_rows - len(rows), _PADDING))
            real = rows != _PADDING
            index = np.where(real, rows, 0)[:, None] + np.arange(length)
            values = self._tokens.windows(np.where(real, rows, 0), length).astype(np.int64)
            scored = real[:, None] & (index[:, 1:] < len(self._tokens)) & (self._bytes[values[:, 1:]] > 0)
            places = (
                index[:, 1:] if self.clusters == "documents" else index[:, :-1]
            )  # a window's last target is behind it
            clusters = np.searchsorted(self._cluster_starts, places, side="right") - 1
            yield Windows(
                tokens=torch.from_numpy(values[:, :-1].copy()),
                targets=torch.from_numpy(np.where(scored, values[:, 1:], IGNORE_INDEX)),
                clusters=clusters,
            )


def window_starts(num_tokens: int, sequence_len: int, max_tokens: int = MAX_VAL_TOKENS) -> NDArray[np.int64]:
    """Starts of windows that cover every target once; of longer texts than `max_tokens`, evenly spaced ones."""
    starts = np.arange(0, max(num_tokens - 1, 1), sequence_len)
    most = max(1, max_tokens // sequence_len)
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
    return starts


def _shares(starts: NDArray[np.int64], world_size: int) -> NDArray[np.int64]:
    """(rank, window): equally many for each rank, so that all take part in equally many collectives."""
    per_rank = -(-len(starts) // world_size)
    padded = np.append(starts, np.full(per_rank * world_size - len(starts), _PADDING))
    return padded.reshape(per_rank, world_size).T
