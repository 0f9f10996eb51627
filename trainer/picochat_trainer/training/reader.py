"""Training batches of the base stage: seeded, rank-aware, resumable at an exact position by any number of ranks.

Each epoch visits all rows once in a seeded order: windows that do not overlap, cut from a random offset, or the rows of
a packing plan. A global step takes the next rows of that order; ranks and micro-batches take their slices of it, so
that two processes with half the batch see exactly what one process sees. The position counts rows of all ranks.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from picochat_contract.errors import Code, ContractError
from torch import Tensor

from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training.order import Order, permutation
from picochat_trainer.training.packing import PackedRows
from picochat_trainer.training.tokens import TokenSource, TokenSpace

# B rows, T tokens


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """What one rank computes in one optimizer step."""

    micro_batches: tuple[tuple[Tensor, Tensor], ...]
    """(tokens_BT, targets_BT), int64, on the CPU."""
    num_targets: int
    """Targets that carry loss, over all ranks and micro-batches of the step."""
    shapes: list[tuple[int, int]]
    """(B, T) of the micro-batches of all ranks: every rank knows them without asking."""


class BatchSource(Protocol):
    def next_step(self) -> StepBatch: ...
    @property
    def position(self) -> dict[str, int]: ...
    def seek(self, position: dict[str, int]) -> None: ...
    def shapes(self) -> list[tuple[int, int]]:
        """All (B, T) that it will ever give: what a compiler must be ready for."""
        ...


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How rows are shared out: `device_batch_size` rows times ranks times micro-batches make a step."""

    sequence_len: int
    device_batch_size: int
    grad_accum_steps: int = 1
    rank: int = 0
    world_size: int = 1
    seed: int = 0

    @property
    def global_rows(self) -> int:
        return self.device_batch_size * self.world_size * self.grad_accum_steps


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The rows of one epoch: what stands at each place of a seeded order of `count` rows."""

    order: Order
    count: int
    offset: int = 0


class RowReader(ABC):
    """Endless steps over the rows of epoch after epoch."""

    def __init__(self, batching: Batching) -> None:
        self._batching = batching
        self._epoch = 0
        self._index = 0  # rows of this epoch that are used up, by all ranks
        self._rows = self._epoch_rows(0)

    @property
    def position(self) -> dict[str, int]:
        return {"epoch": self._epoch, "index": self._index}

    def seek(self, position: dict[str, int]) -> None:
        self._epoch, self._index = position["epoch"], position["index"]
        self._rows = self._epoch_rows(self._epoch)

    def shapes(self) -> list[tuple[int, int]]:
        return [(self._batching.device_batch_size, self._batching.sequence_len)]

    def next_step(self) -> StepBatch:
        batching = self._batching
        rows = self._take(batching.global_rows)
        shape = (batching.grad_accum_steps, batching.world_size, batching.device_batch_size)
        # (micro-batch, rank, row): one process with twice the rows takes two ranks' slices.
        mine = rows.reshape(shape)[:, batching.rank]
        return StepBatch(
            micro_batches=tuple(self._batch(part) for part in mine),
            num_targets=self._num_targets(rows),
            shapes=self.shapes() * (batching.grad_accum_steps * batching.world_size),
        )

    @abstractmethod
    def _epoch_rows(self, epoch: int) -> Epoch: ...

    @abstractmethod
    def _batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(tokens_BT, targets_BT) of rows as `_take` gives them."""

    @abstractmethod
    def _num_targets(self, rows: NDArray[np.int64]) -> int: ...

    def _take(self, count: int) -> NDArray[np.int64]:
        """The next `count` rows, going on into further epochs where this one ends."""
        taken: list[NDArray[np.int64]] = []
        while count:
            if self._index == self._rows.count:
                self._epoch, self._index = self._epoch + 1, 0
                self._rows = self._epoch_rows(self._epoch)
            part = self._place(self._rows.order(self._index, min(count, self._rows.count - self._index)))
            taken.append(part)
            self._index += len(part)
            count -= len(part)
        return np.concatenate(taken)

    def _place(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers of this epoch as numbers that mean the same in every epoch."""
        return rows


class WindowReader(RowReader):
    """Windows over tokens that stand one after another, in memory or in mapped shards."""

    def __init__(self, tokens: TokenSource, batching: Batching) -> None:
        sequence_len = batching.sequence_len
        if len(tokens) < 2 * sequence_len + 1:
            raise ContractError(
                Code.CORPUS_TOO_SMALL,
                f"the training text has {len(tokens)} tokens; a context of {sequence_len} needs at least "
                f"{2 * sequence_len + 1}. Give more text or a smaller context (base.model.sequence_len, --context-size)",
                param="sequence_len",
            )
        self._tokens = tokens
        super().__init__(batching)

    def _epoch_rows(self, epoch: int) -> Epoch:
        batching = self._batching
        rng = np.random.default_rng([batching.seed, epoch])
        offset = int(rng.integers(batching.sequence_len))
        count = (len(self._tokens) - 1 - offset) // batching.sequence_len
        return Epoch(order=permutation(rng, count), count=count, offset=offset)

    def _place(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._rows.offset + self._batching.sequence_len * rows

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        tokens = self._tokens.windows(rows, self._batching.sequence_len + 1)
        return _tensor(tokens[:, :-1]), _tensor(tokens[:, 1:])

    def _num_targets(self, rows: NDArray[np.int64]) -> int:
        return len(rows) * self._batching.sequence_len


class PackedReader(RowReader):
    """Rows of a packing plan, read from where the documents lie."""

    def __init__(self, space: TokenSpace, plan: PackedRows, batching: Batching, *, pad_id: int) -> None:
        assert plan.row_len == batching.sequence_len + 1
        if len(plan) < 2:
            raise ContractError(
                Code.CORPUS_TOO_SMALL,
                f"the training text fills {len(plan)} rows of {plan.row_len} tokens, at least 2 are needed. Give more "
                "text or a smaller context (base.model.sequence_len, --context-size)",
                param="sequence_len",
            )
        self._space = space
        self._plan = plan
        self._targets = plan.num_targets
        self._pad_id = pad_id
        super().__init__(batching)

    def _epoch_rows(self, epoch: int) -> Epoch:
        rng = np.random.default_rng([self._batching.seed, epoch])
        return Epoch(order=permutation(rng, len(self._plan)), count=len(self._plan))

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        tokens, lengths = packed_tokens(self._space, self._plan, rows, self._pad_id)
        targets_BT = _tensor(tokens[:, 1:])
        padding = np.arange(1, self._plan.row_len) >= lengths[:, None]
        if padding.any():
            targets_BT[torch.from_numpy(padding)] = IGNORE_INDEX
        return _tensor(tokens[:, :-1]), targets_BT

    def _num_targets(self, rows: NDArray[np.int64]) -> int:
        return int(self._targets[rows].sum())


def packed_tokens(
    space: TokenSpace, plan: PackedRows, rows: NDArray[np.int64], pad_id: int
) -> tuple[np.ndarray, NDArray[np.int64]]:
    """(B, T + 1) tokens of rows of a plan, padded at the right, and the tokens in each."""
    out = np.full((len(rows), plan.row_len), pad_id, dtype=space.dtype)
    counts = plan.firsts[rows + 1] - plan.firsts[rows]
    row = np.repeat(np.arange(len(rows)), counts)
    before = np.cumsum(counts) - counts
    piece = np.arange(len(row)) - before[row] + plan.firsts[rows][row]
    lengths = plan.pieces.lengths[piece]
    ends = np.cumsum(lengths)
    row_ends = ends[before + counts - 1]
    row_lengths = np.diff(row_ends, prepend=0)
    positions = row * plan.row_len + ends - lengths - (row_ends - row_lengths)[row]
    space.copy(plan.pieces.addresses[piece], lengths, out.reshape(-1), positions)
    return out, row_lengths


def _tensor(tokens: np.ndarray) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64))
