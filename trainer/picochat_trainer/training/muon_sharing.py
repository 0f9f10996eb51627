"""How the ranks share out the matrices that Muon makes orthogonal: each has one owner, which alone does it.

Tensors travel as bytes, which every back end takes, in the number format of the products.

M rows, N columns
"""

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

Shape = tuple[int, int]


class Sharing(Protocol):
    """Which matrices a rank owns, and how they come to it and back."""

    wanted: Sequence[int]
    """The parameters whose update `whole` takes, in its order."""

    def whole(self, updates: list[Tensor]) -> list[Tensor]:
        """The matrices that this rank owns."""

    def parts(self, matrices: list[Tensor]) -> list[Tensor]:
        """This rank's part of the matrix of every parameter, from what the owners made of theirs."""


def sharing_of(parameters: Sequence[nn.Parameter], dtype: torch.dtype) -> Sharing:
    """What fits the placement of `parameters`: sharded by rows (FSDP2), on several ranks (DDP), or in one process."""
    shapes = [(p.shape[0], p.shape[1]) for p in parameters]
    first = parameters[0]
    if isinstance(first, DTensor):
        mesh = first.device_mesh
        for p in parameters:
            if not isinstance(p, DTensor) or p.device_mesh != mesh or tuple(p.placements) != (Shard(0),):
                placement = p.placements if isinstance(p, DTensor) else "not a DTensor"
                raise RuntimeError(
                    f"Muon takes parameters that fully_shard has split by rows over one mesh, got {placement}; shard "
                    "the whole model on a one-dimensional mesh before the optimizer is made"
                )
        return RowSharded(shapes, dtype, first.device, mesh.get_group())
    if dist.is_initialized() and dist.get_world_size() > 1:
        return Replicated(shapes, dtype, first.device)
    return Alone(len(shapes))


def shares(shapes: Sequence[Shape], num_ranks: int) -> list[list[int]]:
    """For each rank the indices of the matrices it owns: the costliest first, each to the rank with least work.

    The cost of a matrix is M N min(M, N), which its products are proportional to.
    """
    found: list[list[int]] = [[] for _ in range(num_ranks)]
    work = [0] * num_ranks
    costs = [rows * columns * min(rows, columns) for rows, columns in shapes]
    for index in sorted(range(len(shapes)), key=lambda index: (-costs[index], index)):
        rank = min(range(num_ranks), key=lambda rank: (work[rank], rank))
        found[rank].append(index)
        work[rank] += costs[index]
    return found


def num_rows(total: int, num_ranks: int, rank: int) -> int:
    """Rows of `total` that lie on `rank`: `Shard(0)` gives all the same, rounded up, until there are no more."""
    chunk = -(-total // num_ranks)
    return min(total, chunk * (rank + 1)) - min(total, chunk * rank)


class Alone:
    """One process: all matrices are here."""

    def __init__(self, num_matrices: int) -> None:
        self.wanted: Sequence[int] = range(num_matrices)

    def whole(self, updates: list[Tensor]) -> list[Tensor]:
        return updates

    def parts(self, matrices: list[Tensor]) -> list[Tensor]:
        return matrices


class Replicated:
    """Every rank has all matrices whole: owners send what they made to all others, in one all-gather."""

    def __init__(self, shapes: Sequence[Shape], dtype: torch.dtype, device: torch.device) -> None:
        self._shapes = shapes
        self._dtype = dtype
        self._device = device
        self._shares = shares(shapes, dist.get_world_size())
        self._length = max(sum(math.prod(shapes[index]) for index in share) for share in self._shares)
        self.wanted: Sequence[int] = self._shares[dist.get_rank()]

    def whole(self, updates: list[Tensor]) -> list[Tensor]:
        return updates

    def parts(self, matrices: list[Tensor]) -> list[Tensor]:
        own = torch.zeros(self._length, dtype=self._dtype, device=self._device)
        if matrices:
            torch.cat([m.reshape(-1) for m in matrices], out=own[: sum(m.numel() for m in matrices)])
        gathered = own.new_empty(len(self._shares), self._length)
        dist.all_gather_into_tensor(gathered.view(-1).view(torch.uint8), own.view(torch.uint8))
        found = [own] * len(self._shapes)
        for row, share in zip(gathered, self._shares, strict=True):
            sizes = [math.prod(self._shapes[index]) for index in share]
            for index, piece in zip(share, row[: sum(sizes)].split(sizes), strict=True):
                found[index] = piece.view(self._shapes[index])
        return found


class RowSharded:
    """Every rank has some rows of each matrix: one all-to-all brings the rows to the owners, one brings them back."""

    def __init__(
        self, shapes: Sequence[Shape], dtype: torch.dtype, device: torch.device, group: dist.ProcessGroup
    ) -> None:
        self._group = group
        self._dtype = dtype
        self._device = device
        self._shapes = shapes
        num_ranks, self._rank = dist.get_world_size(group), dist.get_rank(group)
        self._rows = [[num_rows(shape[0], num_ranks, rank) for rank in range(num_ranks)] for shape in shapes]
        self._shares = shares(shapes, num_ranks)
        self._own = self._shares[self._rank]
        self.wanted: Sequence[int] = range(len(shapes))

    def whole(self, updates: list[Tensor]) -> list[Tensor]:
        received = self._exchange(
            [[updates[index] for index in share] for share in self._shares],
            [[self._part_shape(index, rank) for index in self._own] for rank in range(len(self._shares))],
        )
        return [torch.cat(list(parts)) for parts in zip(*received, strict=True)]

    def parts(self, matrices: list[Tensor]) -> list[Tensor]:
        split = [matrix.split(self._rows[index]) for index, matrix in zip(self._own, matrices, strict=True)]
        received = self._exchange(
            [[parts[rank] for parts in split] for rank in range(len(self._shares))],
            [[self._part_shape(index, self._rank) for index in share] for share in self._shares],
        )
        found = {
            index: part
            for share, parts in zip(self._shares, received, strict=True)
            for index, part in zip(share, parts, strict=True)
        }
        return [found[index] for index in range(len(self._shapes))]

    def _part_shape(self, index: int, rank: int) -> Shape:
        return self._rows[index][rank], self._shapes[index][1]

    def _exchange(self, sent: list[list[Tensor]], shapes: list[list[Shape]]) -> list[list[Tensor]]:
        """Send `sent[r]` to each rank r; return what each rank sent here, whose shapes are `shapes[r]`."""
        flat = [tensor.reshape(-1) for tensors in sent for tensor in tensors]
        outgoing = torch.cat(flat) if flat else torch.empty(0, dtype=self._dtype, device=self._device)
        lengths = [sum(math.prod(shape) for shape in of_rank) for of_rank in shapes]
        incoming = outgoing.new_empty(sum(lengths))
        size = outgoing.element_size()
        dist.all_to_all_single(
            incoming.view(torch.uint8),
            outgoing.view(torch.uint8),
            [size * length for length in lengths],
            [size * sum(tensor.numel() for tensor in tensors) for tensors in sent],
            group=self._group,
        )
        return [
            _unpack(incoming[start:end], of_rank)
            for (start, end), of_rank in zip(pairwise(accumulate(lengths, initial=0)), shapes, strict=True)
        ]


def _unpack(flat: Tensor, shapes: list[Shape]) -> list[Tensor]:
    pieces = flat.split([math.prod(shape) for shape in shapes]) if shapes else ()
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
