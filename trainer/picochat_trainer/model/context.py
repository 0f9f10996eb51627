"""What all layers of one forward pass share: positions, document borders, attention's mask and kernel, the cache.

B rows, T queries, S keys, h head dim
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from picochat_trainer.model.attention import as_bias, causal_bias, causal_block_mask, document_block_mask
from picochat_trainer.model.cache import KVCache
from picochat_trainer.model.kernels import Kernel


@dataclass(kw_only=True)
class Context:
    """`positions` are T numbers where all rows count alike, else (B, T)."""

    kernel: Kernel
    positions: Tensor
    cos: Tensor | None = None
    """RoPE tables, (T, h) or (B, 1, T, h); None with learned positions."""
    sin: Tensor | None = None
    mask: Tensor | BlockMask | None = None
    """(B, T, S): true where a query may look, or a float bias for the matmul form; None means causal with T == S."""
    cache: KVCache | None = None
    span: int = 0
    """Positions of the cache that this pass can see."""


def training_context(tokens_BT: Tensor, kernel: Kernel, document_token: int | None) -> Context:
    """The context of whole rows. With a document token, attention stops at the beginnings of documents."""
    length, device = tokens_BT.shape[1], tokens_BT.device
    if document_token is None:
        return Context(
            kernel=kernel,
            positions=torch.arange(length, device=device),
            mask=_causal_mask(kernel, length, device),
        )
    documents_BT = document_ids(tokens_BT, document_token)
    positions_BT = document_positions(tokens_BT, document_token)
    if kernel.form == "flex":
        return Context(kernel=kernel, positions=positions_BT, mask=document_block_mask(documents_BT))
    mask_BTS = document_mask(documents_BT)
    mask = as_bias(mask_BTS) if kernel.form == "matmul" else mask_BTS
    return Context(kernel=kernel, positions=positions_BT, mask=mask)


def _causal_mask(kernel: Kernel, length: int, device: torch.device) -> Tensor | BlockMask | None:
    """Made once for all layers where the kernel needs one at all."""
    if kernel.form == "flex":
        return causal_block_mask(length, device)
    return causal_bias(length, device) if kernel.form == "matmul" else None


def cached_context(num_tokens: int, kernel: Kernel, cache: KVCache, device: torch.device) -> Context:
    """The context of tokens that go behind each row's length; raises ValueError where the cache is too short."""
    span = int(cache.lengths_B.max()) + num_tokens
    if span > cache.capacity:
        raise ValueError(f"the cache has {cache.capacity} positions, this pass needs {span}")
    positions_BT = cache.lengths_B.to(device)[:, None] + torch.arange(num_tokens, device=device)
    mask_BTS = torch.arange(span, device=device) <= positions_BT[:, :, None]
    return Context(kernel=kernel, positions=positions_BT, mask=mask_BTS, cache=cache, span=span)


def document_ids(tokens_BT: Tensor, document_token: int) -> Tensor:
    """Number each row's documents; a document begins with `document_token`."""
    return (tokens_BT == document_token).cumsum(dim=1)


def document_positions(tokens_BT: Tensor, document_token: int) -> Tensor:
    """Each token's distance from the beginning of its document; what stands before the first one begins the row."""
    index_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    starts_BT = torch.where(tokens_BT == document_token, index_T, 0).cummax(dim=1).values
    return index_T - starts_BT


def document_mask(documents_BT: Tensor) -> Tensor:
    """mask_BTS: causal, and within one document."""
    return (documents_BT[:, :, None] == documents_BT[:, None, :]).tril()
