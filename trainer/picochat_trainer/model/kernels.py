"""Which attention kernel runs, decided from what is asked for and what there is.

The decision is a pure function of `AttentionFacts`, so that it is tested without a GPU. Limits of the kernels: PyTorch's
`sdp_utils.cpp` (flash, memory-efficient, cuDNN), `_fa3.py` and `flex_attention.py`, read in 2.11 to 2.13.

Speeds on an H100, forward, head dim 64 at 1k context / 128 at 2k: FlashAttention-2 306 / 362 TFLOP/s, cuDNN 373 / 617,
FlashAttention-3 392 / 625 (Shah et al. 2024, arXiv 2407.08608, figures 5 and 6). So `auto` on Hopper asks cuDNN first.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from picochat_contract.configs import AttentionBackend
from picochat_contract.errors import Code, ContractError
from torch.nn.attention import SDPBackend, sdpa_kernel

_AMPERE, _HOPPER, _BLACKWELL = 8, 9, 10  # major compute capability
_MAX_FLASH_HEAD_DIM = 256
_MAX_CUDNN_HEAD_DIM = {_AMPERE: 128, _HOPPER: 256}
_MIN_FLEX_HEAD_DIM = 16
_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class AttentionFacts:
    """What decides about a kernel besides the wish."""

    device: str
    """cpu or cuda."""
    dtype: torch.dtype
    """Of queries, keys and values, so under autocast its type."""
    head_dim: int
    documents: bool = False
    """Attention stops at document borders."""
    dropout: bool = False
    capability: int = 0
    """Major compute capability; 0 without CUDA."""
    has_fa3: bool = False
    """The package `flash_attn_interface` is there and this PyTorch can use it."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A form of attention, and for `sdpa` the kernels that PyTorch may take, best first."""

    form: Literal["matmul", "sdpa", "flex"]
    backends: tuple[str, ...] = ()
    """Names of SDPBackend; empty leaves PyTorch its own choice."""
    repeats_kv: bool = False
    """Keys and values are copied to as many heads as queries have: the memory-efficient kernel needs that."""

    def scope(self) -> AbstractContextManager[object]:
        """Inside, scaled_dot_product_attention takes only these kernels."""
        if not self.backends:
            return nullcontext()
        return sdpa_kernel([getattr(SDPBackend, name) for name in self.backends], set_priority=True)


MATMUL = Kernel(form="matmul")
PLAIN_SDPA = Kernel(form="sdpa")
FLEX = Kernel(form="flex")
_CUDNN, _FLASH, _EFFICIENT, _MATH = "CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"
_WITHOUT_HALF = Kernel(form="sdpa", backends=(_EFFICIENT, _MATH), repeats_kv=True)


def select_kernel(backend: AttentionBackend, facts: AttentionFacts) -> Kernel:
    """The kernel of training; raises `device_unavailable` or `invalid_value` where the wish cannot be met."""
    if facts.device == "cpu":
        return _on_cpu(backend)
    if backend == "auto":
        return _fastest(facts)
    if backend == "math":
        return Kernel(form="sdpa", backends=(_MATH,))
    if backend == "efficient":
        return Kernel(form="sdpa", backends=(_EFFICIENT,), repeats_kv=True)
    if backend == "flex":
        _require(not facts.dropout, backend, "has no dropout", "set model.dropout to 0 or take auto")
        _require(
            facts.head_dim >= _MIN_FLEX_HEAD_DIM,
            backend,
            f"needs a head_dim of at least {_MIN_FLEX_HEAD_DIM}, got {facts.head_dim}",
            "take fewer heads or auto",
        )
        return FLEX
    _check_fused(backend, facts)
    return Kernel(form="sdpa", backends=(_CUDNN if backend == "cudnn" else _FLASH,))


def evaluation_kernel(facts: AttentionFacts) -> Kernel:
    """For forward passes that are not training steps: no compiled kernel, PyTorch's own choice."""
    if facts.device == "cpu":
        return MATMUL
    return Kernel(form="sdpa", repeats_kv=facts.documents or facts.dtype not in _HALF)


def cached_kernel(capability: int) -> Kernel:
    """For passes with a cache, whose queries are few and have a mask.

    On B200 not cuDNN, which PyTorch would take there: answers of models with 4 key/value heads come out wrong
    (https://github.com/pytorch/pytorch/issues/193893, open; seen with 2.11 and 2.13).
    """
    return _WITHOUT_HALF if capability == _BLACKWELL else PLAIN_SDPA


def activate(backend: AttentionBackend) -> None:
    """Put FlashAttention-3 in the place of PyTorch's flash kernel, in this process, where it is asked for.

    Nothing is downloaded: `select_kernel` has refused before where the package is missing.
    """
    if backend == "fa3":
        from torch.nn.attention import activate_flash_attention_impl  # not in every PyTorch

        activate_flash_attention_impl("FA3")


@cache
def capability(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0


@cache
def has_fa3() -> bool:
    can_activate = hasattr(torch.nn.attention, "activate_flash_attention_impl")
    return can_activate and importlib.util.find_spec("flash_attn_interface") is not None


def _on_cpu(backend: AttentionBackend) -> Kernel:
    if backend in ("auto", "math"):
        return MATMUL
    reason = "has no backward pass on a CPU" if backend == "flex" else "needs CUDA; this run is on cpu"
    raise _refusal(Code.DEVICE_UNAVAILABLE, backend, reason, "use auto or math")


def _fastest(facts: AttentionFacts) -> Kernel:
    if facts.documents:
        can_flex = not facts.dropout and facts.head_dim >= _MIN_FLEX_HEAD_DIM
        return FLEX if can_flex else _WITHOUT_HALF
    if facts.dtype not in _HALF or facts.capability < _AMPERE or facts.head_dim > _MAX_FLASH_HEAD_DIM:
        return _WITHOUT_HALF
    first = (_CUDNN, _FLASH) if facts.capability == _HOPPER else (_FLASH,)
    return Kernel(form="sdpa", backends=(*first, _MATH))


def _check_fused(backend: AttentionBackend, facts: AttentionFacts) -> None:
    """Of flash, cudnn and fa3."""
    _require(
        not facts.documents,
        backend,
        "cannot stop at document borders",
        "take auto or flex, or no document_mask",
    )
    _require(
        facts.dtype in _HALF,
        backend,
        f"computes in bf16, not in {facts.dtype}",
        "set precision to bf16 or take auto",
    )
    needed = _HOPPER if backend == "fa3" else _AMPERE
    if facts.capability < needed or (backend == "fa3" and facts.capability > needed):
        reason = f"needs a GPU of compute capability {needed}, this one has {facts.capability}"
        raise _refusal(Code.DEVICE_UNAVAILABLE, backend, reason, "take auto")
    largest = _MAX_FLASH_HEAD_DIM
    if backend == "cudnn":
        largest = _MAX_CUDNN_HEAD_DIM.get(facts.capability, 128)
        _require(
            facts.head_dim % 8 == 0,
            backend,
            f"needs a head_dim divisible by 8, got {facts.head_dim}",
            "take auto",
        )
    _require(
        facts.head_dim <= largest,
        backend,
        f"takes a head_dim up to {largest}, got {facts.head_dim}",
        "take auto",
    )
    if backend == "fa3":
        _require(not facts.dropout, backend, "has no dropout", "set model.dropout to 0 or take auto")
        if not facts.has_fa3:
            raise _refusal(
                Code.DEVICE_UNAVAILABLE,
                backend,
                "needs the package flash_attn_interface (FlashAttention-3) and a PyTorch that can use it",
                "install it or take auto",
            )


def _require(holds: bool, backend: AttentionBackend, reason: str, remedy: str) -> None:
    if not holds:
        raise _refusal(Code.INVALID_VALUE, backend, reason, remedy)


def _refusal(code: Code, backend: AttentionBackend, reason: str, remedy: str) -> ContractError:
    return ContractError(code, f"attn_backend is {backend!r}, which {reason}: {remedy}", param="attn_backend")
