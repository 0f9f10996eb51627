"""Causal attention with grouped queries, in two forms with the same numbers.

CUDA takes PyTorch's fused kernels; `choose_backend` says which. On the CPU two plain matmuls are faster for the small heads and short
contexts of this project (measured while training 1.5M parameters, context 256: +8 % tokens/s).

B rows, H query heads, K key/value heads, G = H/K, T queries, S keys, h head dim
"""

import math

import torch
import torch.nn.functional as F
from picochat_contract.configs import AttentionBackend
from picochat_contract.errors import Code, ContractError
from torch import Tensor


def choose_backend(backend: AttentionBackend, device: str) -> None:
    """Leave only one kind of fused attention kernel on in this process; `auto` leaves PyTorch its choice.

    Raises `device_unavailable` on the CPU for anything but auto and math: the matmul form is what it has.
    """
    if not device.startswith("cuda"):
        if backend not in ("auto", "math"):
            raise ContractError(
                Code.DEVICE_UNAVAILABLE,
                f"base.attn_backend is {backend!r}, which needs CUDA; this run is on {device}. Use auto or math",
                param="attn_backend",
            )
        return
    switches = {
        "flash": torch.backends.cuda.enable_flash_sdp,
        "efficient": torch.backends.cuda.enable_mem_efficient_sdp,
        "math": torch.backends.cuda.enable_math_sdp,
        "cudnn": torch.backends.cuda.enable_cudnn_sdp,
    }
    for name, switch in switches.items():
        switch(backend in ("auto", name))


def attend(
    q_BHTh: Tensor, k_BKSh: Tensor, v_BKSh: Tensor, mask_BTS: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """Return out_BHTh. `mask_BTS` is true where a query may look; None means causal with T == S."""
    form = matmul_attention if q_BHTh.device.type == "cpu" else fused_attention
    return form(q_BHTh, k_BKSh, v_BKSh, mask_BTS, dropout)


def fused_attention(
    q_BHTh: Tensor, k_BKSh: Tensor, v_BKSh: Tensor, mask_BTS: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    return F.scaled_dot_product_attention(
        q_BHTh,
        k_BKSh,
        v_BKSh,
        attn_mask=None if mask_BTS is None else mask_BTS[:, None],
        dropout_p=dropout,
        is_causal=mask_BTS is None,
        enable_gqa=q_BHTh.shape[1] != k_BKSh.shape[1],
    )


def matmul_attention(
    q_BHTh: Tensor, k_BKSh: Tensor, v_BKSh: Tensor, mask_BTS: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    B, H, T, h = q_BHTh.shape
    K, S = k_BKSh.shape[1:3]
    # The G query heads of a group become further rows of one matmul: keys and values are never repeated.
    q_BKRh = (q_BHTh / math.sqrt(h)).reshape(B, K, H // K * T, h)
    scores_BKGTS = (q_BKRh @ k_BKSh.transpose(-2, -1)).view(B, K, H // K, T, S)
    if mask_BTS is None:
        mask_BTS = torch.ones(T, S, dtype=torch.bool, device=q_BHTh.device).tril()[None]
    scores_BKGTS = scores_BKGTS.masked_fill(~mask_BTS[:, None, None], -math.inf)
    weights_BKGTS = F.softmax(scores_BKGTS, dim=-1, dtype=torch.float32).to(v_BKSh.dtype)
    if dropout:
        weights_BKGTS = F.dropout(weights_BKGTS, dropout)
    return (weights_BKGTS.view(B, K, H // K * T, S) @ v_BKSh).view(B, H, T, h)
