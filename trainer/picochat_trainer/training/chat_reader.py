"""SFT batches: drawn by category, bucketed by length, padded to few widths, resumable at an exact position.

A round draws as many rows as there are, with each category's share by the sampling rule. Everything about a round
follows from seed, round number and rows per step, so that a position is two integers, which mean the same for any number
of ranks that shares those rows out.

B rows, T tokens
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training import distributed
from picochat_trainer.training.chat import Example
from picochat_trainer.training.reader import StepBatch
from picochat_trainer.training.validation import Validation, ratio

Sampling = Literal["uniform", "category_sqrt", "category_balanced"]

_EXPONENTS: dict[Sampling, float] = {"uniform": 1.0, "category_sqrt": 0.5, "category_balanced": 0.0}
_WIDTH_QUANTILES = (0.25, 0.5, 0.9, 1.0)  # few widths: a compiler needs one set of kernels for each
_WIDTH_MULTIPLE = 16
_SORTED_STEPS = (
    16  # rows of this many steps are sorted together, so that a batch's rows are about equally long
)


class ChatReader:
    """Endless training batches over the examples of one side of the split."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        pad_id: int,
        sequence_len: int,
        device_batch_size: int,
        grad_accum_steps: int = 1,
        rank: int = 0,
        world_size: int = 1,
        sampling: Sampling = "category_sqrt",
        seed: int = 0,
    ) -> None:
        self._examples = examples
        self._pad_id = pad_id
        self._widths = batch_widths([example.num_inputs for example in examples], sequence_len)
        self._rows = device_batch_size
        self._accum = grad_accum_steps
        self._rank = rank
        self._world_size = world_size
        self._exponent = _EXPONENTS[sampling]
        self._seed = seed
        self._round = 0
        self._index = 0  # steps of this round that are used up
        self._steps = self._round_steps(0)

    @property
    def position(self) -> dict[str, int]:
        return {"round": self._round, "index": self._index}

    def seek(self, position: dict[str, int]) -> None:
        self._round, self._index = position["round"], position["index"]
        self._steps = self._round_steps(self._round)

    def shapes(self) -> list[tuple[int, int]]:
        return [(self._rows, width) for width in self._widths]

    def next_step(self) -> StepBatch:
        if self._index == len(self._steps):
            self._round, self._index = self._round + 1, 0
            self._steps = self._round_steps(self._round)
        chosen = [self._examples[i] for i in self._steps[self._index]]
        self._index += 1
        batches = [chosen[start : start + self._rows] for start in range(0, len(chosen), self._rows)]
        return StepBatch(
            micro_batches=tuple(
                padded_batch(batch, self._widths, self._pad_id)
                for batch in batches[self._rank :: self._world_size]
            ),
            num_targets=sum(example.num_targets for example in chosen),
            shapes=[(self._rows, padded_width(batch, self._widths)) for batch in batches],
        )

    def _round_steps(self, number: int) -> list[np.ndarray]:
        """Indices of the examples of each step of a round."""
        rng = np.random.default_rng([self._seed, number])
        order = rng.permutation(self._draw(rng))
        per_step = self._rows * self._accum * self._world_size
        num_steps = -(-len(order) // per_step)
        order = np.resize(order, num_steps * per_step)  # the last step is filled up from the front
        lengths = np.asarray([example.num_inputs for example in self._examples])
        steps: list[np.ndarray] = []
        for start in range(0, len(order), _SORTED_STEPS * per_step):
            chunk = order[start : start + _SORTED_STEPS * per_step]
            chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
            steps += list(chunk.reshape(-1, per_step))
        return [steps[i] for i in rng.permutation(len(steps))]

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        """As many examples as there are; each category's share goes by its size to the sampling's exponent."""
        members: dict[str, list[int]] = {}
        for index, example in enumerate(self._examples):
            members.setdefault(example.category, []).append(index)
        names = sorted(members)
        weights = np.asarray([len(members[name]) ** self._exponent for name in names])
        shares = _whole_shares(weights, len(self._examples))
        # A category that is drawn more often than it has rows repeats all of them before any a third time.
        return np.concatenate([_draw_from(members[n], s, rng) for n, s in zip(names, shares, strict=True)])


class ChatValidator:
    """Mean loss over the answer tokens of the held-out rows, its standard error over rows; each rank takes its share.

    All ranks make equally many forward passes, in which a sharded model gathers its weights from all.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        pad_id: int,
        sequence_len: int,
        batch_rows: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        widths = batch_widths([example.num_inputs for example in examples], sequence_len)
        by_length = sorted(examples, key=lambda example: (example.num_inputs, example.line))
        starts = range(0, len(by_length), batch_rows)
        batches = [(i, *padded_batch(by_length[i : i + batch_rows], widths, pad_id)) for i in starts]
        self._num_rows = len(by_length)
        self._batches = batches[rank::world_size]
        if len(self._batches) < len(batches[::world_size]):
            first, tokens_BT, targets_BT = batches[0]
            self._batches.append((first, tokens_BT, torch.full_like(targets_BT, IGNORE_INDEX)))

    @torch.no_grad()
    def __call__(self, model: GPT) -> Validation:
        device = next(model.parameters()).device
        nats, counts = np.zeros(self._num_rows), np.zeros(self._num_rows)
        for first, tokens_BT, targets_BT in self._batches:
            losses_BT = model.token_losses(tokens_BT.to(device), targets_BT.to(device))
            rows = slice(first, first + len(tokens_BT))
            nats[rows] += losses_BT.double().sum(dim=1).cpu().numpy()
            counts[rows] += (targets_BT != IGNORE_INDEX).sum(dim=1).numpy()
        sums = distributed.sum_over_ranks([*nats.tolist(), *counts.tolist()])
        loss, stderr = ratio(*np.array(sums).reshape(2, self._num_rows))
        return Validation(loss=loss, loss_stderr=stderr)


def padded_width(examples: Sequence[Example], widths: Sequence[int]) -> int:
    """The smallest width that holds all rows."""
    longest = max(example.num_inputs for example in examples)
    return next(width for width in widths if width >= longest)


def padded_batch(examples: Sequence[Example], widths: Sequence[int], pad_id: int) -> tuple[Tensor, Tensor]:
    """(tokens_BT, targets_BT) in the smallest width that holds all rows; only answer tokens are targets."""
    width = padded_width(examples, widths)
    tokens_BT = torch.full((len(examples), width), pad_id, dtype=torch.int64)
    targets_BT = torch.full((len(examples), width), IGNORE_INDEX, dtype=torch.int64)
    for row, example in enumerate(examples):
        ids, mask = torch.tensor(example.ids), torch.tensor(example.loss_mask)
        tokens_BT[row, : example.num_inputs] = ids[:-1]
        targets_BT[row, : example.num_inputs] = torch.where(mask[1:] == 1, ids[1:], IGNORE_INDEX)
    return tokens_BT, targets_BT


def batch_widths(lengths: Sequence[int], sequence_len: int) -> list[int]:
    """A few widths that fit the lengths, in rising order."""
    quantiles = np.quantile(lengths, _WIDTH_QUANTILES, method="higher")
    rounded = {int(-(-length // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE) for length in quantiles}
    return sorted({min(width, sequence_len) for width in rounded})


def _whole_shares(weights: np.ndarray, total: int) -> list[int]:
    """Whole numbers proportional to `weights` that sum to `total` (largest remainder), each at least 1."""
    exact = weights / weights.sum() * total
    shares = np.maximum(np.floor(exact).astype(int), 1)
    for index in np.argsort(shares - exact, kind="stable"):
        if shares.sum() >= total:
            break
        shares[index] += 1
    return [int(share) for share in shares]


def _draw_from(members: Sequence[int], count: int, rng: np.random.Generator) -> np.ndarray:
    repeats = -(-count // len(members))
    return np.concatenate([rng.permutation(members) for _ in range(repeats)])[:count]
