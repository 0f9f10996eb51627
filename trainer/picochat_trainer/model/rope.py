"""Rotary position embedding, half-split as in Hugging Face: dimension i turns with dimension i + h/2.

Su et al. 2021, arXiv 2104.09864.

T tokens or positions, h head dim
"""

import torch
from torch import Tensor


def rope_tables(head_dim: int, length: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return cos_Th and sin_Th in float32, on the CPU also where a meta device is the default."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device="cpu"), frequencies)
    angles_Th = torch.cat((angles, angles), dim=-1)
    return angles_Th.cos(), angles_Th.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn x (..., T, h) by tables that broadcast to it and have its dtype."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
