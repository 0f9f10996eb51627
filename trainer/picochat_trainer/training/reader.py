"""Training batches of the base stage: seeded, rank-aware, resumable at an exact position.

Each epoch cuts the token array into windows that do not overlap, from a random offset, and visits them in a seeded
order. A global step takes the next windows of that order; ranks and micro-batches take their slices of it, so that
two processes with half the batch see exactly what one process sees.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from picochat_contract.errors import Code, ContractError
from torch import Tensor

from picochat_trainer.training.tokens import Tokens

# B rows, T tokens


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """What one rank computes in one optimizer step."""

    micro_batches: tuple[tuple[Tensor, Tensor], ...]
    """(tokens_BT, targets_BT), int64, on the CPU."""
    num_targets: int
    """Targets that carry loss, over all ranks and micro-batches of the step."""


class BatchSource(Protocol):
    def next_step(self) -> StepBatch: ...
    @property
    def position(self) -> dict[str, int]: ...
    def seek(self, position: dict[str, int]) -> None: ...
    def shapes(self) -> list[tuple[int, int]]:
        """All (B, T) that it will ever give: what a compiler must be ready for."""
        ...


class WindowReader:
    """Windows over one token array in memory."""

    def __init__(
        self,
        tokens: Tokens,
        *,
        sequence_len: int,
        device_batch_size: int,
        grad_accum_steps: int = 1,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        if len(tokens) < 2 * sequence_len + 1:
            raise ContractError(
                Code.CORPUS_TOO_SMALL,
                f"the training text has {len(tokens)} tokens; a context of {sequence_len} needs at least "
                f"{2 * sequence_len + 1}. Give more text or a smaller base.model.sequence_len",
                param="sequence_len",
            )
        self._tokens = tokens
        self._sequence_len = sequence_len
        self._rows = device_batch_size
        self._accum = grad_accum_steps
        self._rank = rank
        self._world_size = world_size
        self._seed = seed
        self._epoch = 0
        self._index = 0  # windows of this epoch that are used up
        self._starts = self._epoch_starts(0)

    @property
    def position(self) -> dict[str, int]:
        return {"epoch": self._epoch, "index": self._index}

    def seek(self, position: dict[str, int]) -> None:
        self._epoch, self._index = position["epoch"], position["index"]
        self._starts = self._epoch_starts(self._epoch)

    def shapes(self) -> list[tuple[int, int]]:
        return [(self._rows, self._sequence_len)]

    def next_step(self) -> StepBatch:
        global_rows = self._rows * self._world_size * self._accum
        starts = self._take(global_rows)
        # (micro-batch, rank, row): one process with twice the rows takes two ranks' slices.
        mine = starts.reshape(self._accum, self._world_size, self._rows)[:, self._rank]
        return StepBatch(
            micro_batches=tuple(self._batch(rows) for rows in mine),
            num_targets=global_rows * self._sequence_len,
        )

    def _take(self, count: int) -> np.ndarray:
        """The next `count` windows, going on into further epochs where this one ends."""
        taken: list[np.ndarray] = []
        while count:
            if self._index == len(self._starts):
                self._epoch, self._index = self._epoch + 1, 0
                self._starts = self._epoch_starts(self._epoch)
            part = self._starts[self._index : self._index + count]
            taken.append(part)
            self._index += len(part)
            count -= len(part)
        return np.concatenate(taken)

    def _batch(self, starts: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = self._tokens[starts[:, None] + np.arange(self._sequence_len + 1)]
        rows_BT = torch.from_numpy(rows.astype(np.int64))
        return rows_BT[:, :-1].contiguous(), rows_BT[:, 1:].contiguous()

    def _epoch_starts(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, epoch])
        offset = int(rng.integers(self._sequence_len))
        count = (len(self._tokens) - 1 - offset) // self._sequence_len
        return offset + self._sequence_len * rng.permutation(count)
