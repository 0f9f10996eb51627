"""Every attention kernel that the device offers, forward and backward, against the textbook formula in float64.

B rows, H query heads, K key/value heads, T tokens, h head dim
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, get_args

import torch
from picochat_contract.configs import AttentionBackend
from picochat_contract.errors import ContractError
from torch import Tensor

from picochat_trainer.model import attention, kernels
from picochat_trainer.model.context import document_ids, document_mask, training_context
from picochat_trainer.sanity.check import Finding, judged
from picochat_trainer.sanity.setup import SEED, Setup

ROWS: Final = 2
MAX_LENGTH: Final = 256
BOS: Final = 0
LIMITS: Final = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference by Euclidean norm, over the norm of the reference: rounding gives a tenth of it."""
TF32_LIMIT: Final = 5e-3
"""Of float32 where matmuls may round to TF32."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a kernel is given, in its number format."""

    queries: Tensor
    """(B, H, T, h), as is the gradient of the output."""
    keys: Tensor
    """(B, K, T, h), as are the values."""
    values: Tensor
    gradient: Tensor
    tokens: Tensor
    """(B, T); BOS begins a document."""


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Output and the gradients of queries, keys and values."""

    tensors: tuple[Tensor, ...]

    def difference(self, reference: "Passes") -> float:
        """The largest of the relative differences; infinite where something is not finite."""
        pairs = zip(self.tensors, reference.tensors, strict=True)
        found = [float((own.double() - right).norm() / right.norm()) for own, right in pairs]
        return max(value if math.isfinite(value) else math.inf for value in found)


def check_attention(setup: Setup) -> Finding:
    """Each kernel without and with document borders, in float32 and, where it is native, bf16."""
    wanted = [setup.attn_backend] if setup.attn_backend != "auto" else list(get_args(AttentionBackend))
    differences: dict[str, float] = {}
    over: list[str] = []
    refused: dict[str, str] = {}
    for dtype in dict.fromkeys((torch.float32, setup.dtype or torch.float32)):
        inputs = _inputs(setup, dtype)
        for documents in (False, True):
            reference = _reference(inputs, documents=documents)
            for backend in wanted:
                name = f"{backend}{' with documents' if documents else ''} in {_name(dtype)}"
                try:
                    difference = _kernel_passes(setup, backend, inputs, documents=documents).difference(
                        reference
                    )
                except (ContractError, ImportError) as error:
                    refused[name] = str(error)
                    continue
                except RuntimeError as error:  # offered by our rules, refused by the device
                    over.append(f"{name} ({str(error).strip().splitlines()[0]})")
                    continue
                differences[name] = difference
                if not difference <= _limit(dtype):
                    over.append(f"{name} {difference:.2g}")
    worst = {
        name: max(value for form, value in differences.items() if form.endswith(f" in {name}"))
        for name in dict.fromkeys(form.rpartition(" in ")[2] for form in differences)
    }
    missing = setup.attn_backend != "auto" and not differences
    return judged(
        bool(differences) and not over,
        ", ".join(f"{value:.2g} in {name}" for name, value in worst.items()) or None,
        "; ".join(f"<= {_limit(dtype):g} in {_name(dtype)}" for dtype in LIMITS),
        "; ".join(
            part
            for part in (
                f"over the limit: {', '.join(over)}" if over else "",
                f"{setup.attn_backend} attention is not offered here: {next(iter(refused.values()))}"
                if missing
                else "",
                f"{len(differences)} kernels and forms agree: {', '.join(differences)}"
                if differences and not over
                else "",
                _not_offered(refused, differences) if not missing else "",
            )
            if part
        ),
    )


def _inputs(setup: Setup, dtype: torch.dtype) -> Inputs:
    config = setup.model_config
    length = min(config.sequence_len, MAX_LENGTH)
    generator = torch.Generator().manual_seed(SEED)
    heads, kv_heads, h = config.n_head, config.num_kv_heads, config.head_dim

    def draw(count: int) -> Tensor:
        return torch.randn(ROWS, count, length, h, generator=generator).to(setup.device, dtype)

    tokens_BT = torch.randint(BOS, 40, (ROWS, length), generator=generator).to(setup.device)
    return Inputs(
        queries=draw(heads),
        keys=draw(kv_heads),
        values=draw(kv_heads),
        gradient=draw(heads),
        tokens=tokens_BT,
    )


def _reference(inputs: Inputs, *, documents: bool) -> Passes:
    """softmax(q k / sqrt(h)) v by its definition, keys and values repeated for their groups, on the CPU."""
    tokens_BT = inputs.tokens.cpu()
    seen_BTS = document_mask(document_ids(tokens_BT, BOS) if documents else torch.zeros_like(tokens_BT))
    q, k, v = (
        t.detach().cpu().double().requires_grad_() for t in (inputs.queries, inputs.keys, inputs.values)
    )
    group = q.shape[1] // k.shape[1]
    scores = q @ k.repeat_interleave(group, 1).transpose(-2, -1) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~seen_BTS[:, None], -math.inf).softmax(-1)
    out = weights @ v.repeat_interleave(group, 1)
    gradients = torch.autograd.grad(out, (q, k, v), inputs.gradient.cpu().double())
    return Passes(tensors=(out.detach(), *gradients))


def _kernel_passes(setup: Setup, backend: AttentionBackend, inputs: Inputs, *, documents: bool) -> Passes:
    """The same from a kernel, as training calls it; ContractError where the device does not offer it."""
    facts = kernels.AttentionFacts(
        device=torch.device(setup.device).type,
        dtype=inputs.queries.dtype,
        head_dim=inputs.queries.shape[-1],
        documents=documents,
        capability=kernels.capability(torch.device(setup.device)),
        has_fa3=setup.on_gpu and kernels.has_fa3(),
    )
    kernel = kernels.select_kernel(backend, facts)
    context = training_context(inputs.tokens, kernel, BOS if documents else None)
    q, k, v = (t.detach().requires_grad_() for t in (inputs.queries, inputs.keys, inputs.values))
    group = q.shape[1] // k.shape[1]
    repeat = (
        partial(torch.repeat_interleave, repeats=group, dim=1)
        if kernel.repeats_kv
        else (lambda tensor: tensor)
    )
    with _activated(backend), kernel.scope():
        out = attention.attend(q, repeat(k), repeat(v), context.mask)
        gradients = torch.autograd.grad(out, (q, k, v), inputs.gradient)
    return Passes(tensors=tuple(tensor.detach().cpu() for tensor in (out, *gradients)))


@contextmanager
def _activated(backend: AttentionBackend) -> Iterator[None]:
    """FlashAttention-3 takes the place of PyTorch's flash kernel; here only for the time of its own check."""
    kernels.activate(backend)
    try:
        yield
    finally:
        restore = getattr(torch.nn.attention, "restore_flash_attention_impl", None)
        if backend == "fa3" and restore is not None:
            restore()


def _not_offered(refused: Iterable[str], measured: Iterable[str]) -> str:
    """The kernels that were refused in every form, by name; those with some form are in `measured`."""
    have = {name.split()[0] for name in measured}
    names = [name for name in dict.fromkeys(name.split()[0] for name in refused) if name not in have]
    return f"not offered by this device: {', '.join(names)}" if names else ""


def _limit(dtype: torch.dtype) -> float:
    if dtype is torch.float32 and torch.get_float32_matmul_precision() != "highest":
        return TF32_LIMIT
    return LIMITS[dtype]


def _name(dtype: torch.dtype) -> str:
    return "bf16" if dtype is torch.bfloat16 else "float32"
