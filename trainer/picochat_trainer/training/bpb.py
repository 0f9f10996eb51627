"""Bits per byte on held-out text, exact, beside what a unigram model of the same tokens reaches.

Bits per byte compares models with different tokenizers. Windows are fixed and do not overlap; every token but the
special ones (which stand for no bytes) is scored once.

B rows, T tokens
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training import distributed
from picochat_trainer.training.tokens import TokenSource, token_counts
from picochat_trainer.training.validation import Validation

MAX_VAL_TOKENS = 1 << 20  # longer validation text is sampled, in evenly spaced windows


class BpbValidator:
    """Scores a model on fixed windows of the validation tokens; each rank takes its share."""

    def __init__(
        self,
        tokens: TokenSource,
        token_bytes: Sequence[int],
        *,
        sequence_len: int,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._tokens = tokens
        self._bytes = np.asarray(token_bytes, dtype=np.int64)
        self._sequence_len = sequence_len
        self._batch_rows = batch_rows
        self._rank = rank
        self._world_size = world_size
        self._starts = _window_starts(len(tokens), sequence_len)

    @property
    def num_targets(self) -> int:
        """Tokens that are scored."""
        return sum(int((targets != IGNORE_INDEX).sum()) for _, targets in self._windows(self._starts))

    def __call__(self, model: GPT) -> Validation:
        device = next(model.parameters()).device
        nats = torch.zeros((), dtype=torch.float64)
        num_targets = num_bytes = 0
        with torch.no_grad():
            for tokens_BT, targets_BT in self._windows(self._starts[self._rank :: self._world_size]):
                losses_BT = model.token_losses(tokens_BT.to(device), targets_BT.to(device))
                nats += losses_BT.double().sum().cpu()
                num_targets += int((targets_BT != IGNORE_INDEX).sum())
                num_bytes += self._count_bytes(targets_BT)
        total = distributed.sum_over_ranks([float(nats), num_targets, num_bytes], str(device))
        return Validation(loss=total[0] / total[1], bpb=total[0] / (math.log(2) * total[2]))

    def unigram_bpb(self, train_tokens: TokenSource) -> float:
        """Bits per byte of token frequencies in `train_tokens`, add-one smoothed, on the same targets."""
        counts = token_counts(train_tokens, len(self._bytes)).astype(np.float64)
        scored = self._bytes > 0
        log_probs = np.log((counts[scored] + 1) / (counts[scored].sum() + scored.sum()))
        nats_of = np.zeros(len(self._bytes))
        nats_of[scored] = -log_probs
        nats = num_bytes = 0.0
        for _, targets_BT in self._windows(self._starts):
            targets = targets_BT[targets_BT != IGNORE_INDEX].numpy()
            nats += float(nats_of[targets].sum())
            num_bytes += int(self._bytes[targets].sum())
        return nats / (math.log(2) * num_bytes)

    def _count_bytes(self, targets_BT: Tensor) -> int:
        return int(self._bytes[targets_BT[targets_BT != IGNORE_INDEX].numpy()].sum())

    def _windows(self, starts: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (tokens_BT, targets_BT); the last window may end early and is padded with ignored targets."""
        for first in range(0, len(starts), self._batch_rows):
            rows = starts[first : first + self._batch_rows]
            index = rows[:, None] + np.arange(self._sequence_len + 1)
            inside = index < len(self._tokens)
            values = self._tokens.windows(rows, self._sequence_len + 1).astype(np.int64)
            scored = inside[:, 1:] & (self._bytes[values[:, 1:]] > 0)
            targets = np.where(scored, values[:, 1:], IGNORE_INDEX)
            yield torch.from_numpy(values[:, :-1].copy()), torch.from_numpy(targets)


def _window_starts(num_tokens: int, sequence_len: int) -> np.ndarray:
    """Starts of windows that cover every target once; of very long texts, evenly spaced ones."""
    starts = np.arange(0, max(num_tokens - 1, 1), sequence_len)
    most = max(1, MAX_VAL_TOKENS // sequence_len)
    if len(starts) > most:
        starts = starts[np.linspace(0, len(starts) - 1, most).round().astype(np.int64)]
    return starts
