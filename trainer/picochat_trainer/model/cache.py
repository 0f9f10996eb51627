"""Static key/value cache: one slot per row, each with its own length.

`rows` gives a view of neighbouring slots, so that a forward pass over some of them copies nothing. The forward
pass writes behind each row's length; the caller then calls `advance`, since only it knows which tokens were padding.

L layers, B slots, K key/value heads, S positions, h head dim
"""

from collections.abc import Sequence

import torch
from picochat_contract.configs import ModelConfig
from torch import Tensor


class KVCache:
    """Keys and values of all layers in two tensors; `lengths_B` lies on the CPU so that reading it never waits."""

    def __init__(self, keys_LBKSh: Tensor, values_LBKSh: Tensor, lengths_B: Tensor) -> None:
        self.keys_LBKSh = keys_LBKSh
        self.values_LBKSh = values_LBKSh
        self.lengths_B = lengths_B

    @classmethod
    def empty(
        cls,
        config: ModelConfig,
        slots: int,
        *,
        device: torch.device | str,
        dtype: torch.dtype,
        length: int | None = None,
    ) -> "KVCache":
        """Room for `slots` rows of `length` positions (default: the model's context)."""
        shape = (config.n_layer, slots, config.num_kv_heads, length or config.sequence_len, config.head_dim)
        # Zeros, not empty: a masked score times an uninitialised NaN would still be NaN.
        keys_LBKSh = torch.zeros(shape, device=device, dtype=dtype)
        return cls(keys_LBKSh, torch.zeros_like(keys_LBKSh), torch.zeros(slots, dtype=torch.int64))

    @property
    def slots(self) -> int:
        return self.lengths_B.shape[0]

    @property
    def capacity(self) -> int:
        """Positions per slot."""
        return self.keys_LBKSh.shape[3]

    def rows(self, start: int, stop: int) -> "KVCache":
        """A view of slots start..stop-1: writes and lengths are shared."""
        return KVCache(
            self.keys_LBKSh[:, start:stop], self.values_LBKSh[:, start:stop], self.lengths_B[start:stop]
        )

    def advance(self, counts: int | Sequence[int]) -> None:
        """Keep the last written tokens: `counts` of them for every row, or one number per row."""
        self.lengths_B += torch.as_tensor(counts, dtype=torch.int64)

    def move(self, source: int, target: int) -> None:
        """Copy a slot over another, to close the gap that a finished row leaves."""
        length = int(self.lengths_B[source])
        self.keys_LBKSh[:, target, :, :length] = self.keys_LBKSh[:, source, :, :length]
        self.values_LBKSh[:, target, :, :length] = self.values_LBKSh[:, source, :, :length]
        self.lengths_B[target] = length

    def repeat_first(self) -> None:
        """Copy slot 0 to all slots: many continuations of one prompt."""
        self.keys_LBKSh[:, 1:] = self.keys_LBKSh[:, :1]
        self.values_LBKSh[:, 1:] = self.values_LBKSh[:, :1]
        self.lengths_B[1:] = self.lengths_B[0]

    def write(
        self, layer: int, positions_BT: Tensor, keys_BKTh: Tensor, values_BKTh: Tensor, span: int
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values at their positions and return the first `span` positions of both."""
        keys_BKSh, values_BKSh = self.keys_LBKSh[layer], self.values_LBKSh[layer]
        index_BKTh = positions_BT[:, None, :, None].expand_as(keys_BKTh)
        keys_BKSh.scatter_(2, index_BKTh, keys_BKTh.to(keys_BKSh.dtype))
        values_BKSh.scatter_(2, index_BKTh, values_BKTh.to(values_BKSh.dtype))
        return keys_BKSh[:, :, :span], values_BKSh[:, :, :span]
