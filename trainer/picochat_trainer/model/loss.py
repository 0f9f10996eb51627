"""Cross-entropy of the head, for all tokens at once or in chunks that never hold float32 logits of a whole micro-batch.

In chunks the gradients of states and head are computed in the forward pass, as in Liger's fused linear cross-entropy (Hsu
et al. 2024, arXiv 2410.10989): nothing of a chunk's logits is kept, and they are computed once. The head's gradient is
added up in float32.

PyTorch 2.13 has `F.linear_cross_entropy` with such chunks; 2.11 has not. It knows no soft-cap, adds the head's gradient up
in the format of its input (under autocast bf16), multiplies in float32 on a CPU, and is one operation that the compiler
cannot look into. So this module has its own, which is shorter than that call and a fallback for 2.11 would be together.

N tokens, C tokens of a chunk, D model dim, V vocab
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from picochat_contract.preflight_footprint import WHOLE_LOGITS_CPU, WHOLE_LOGITS_GPU
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORE_INDEX = -100  # targets that carry no loss

_MIN_CHUNK = 16

Step = Callable[[Tensor, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]
Whole = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def chunk_size(num_tokens: int, vocab: int, device: str, wanted: int | None) -> int:
    """Tokens per chunk, as equal as can be; `num_tokens` where one chunk holds all.

    Without a wish, as many as have float32 logits of 64 MiB on a CPU and 512 MiB elsewhere.
    """
    whole = WHOLE_LOGITS_CPU if device == "cpu" else WHOLE_LOGITS_GPU
    limit = wanted or max(_MIN_CHUNK, whole // (4 * vocab))
    num_chunks = -(-num_tokens // limit)
    return -(-num_tokens // num_chunks)


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """cap * tanh(logits / cap), in float32 (Gemma 2, arXiv 2408.00118); 0 is off."""
    return (cap * torch.tanh(logits.float() / cap)).to(logits.dtype) if cap else logits


def whole_loss(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    """Mean cross-entropy in one piece, nats, float32."""
    logits_NV = soft_cap(F.linear(x_ND, weight_VD).float(), cap)
    return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE_INDEX)


def token_losses(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, chunk: int) -> Tensor:
    """Cross-entropy losses_N, float32; 0 where the target is ignored. Logits are computed again for the gradient."""
    if chunk >= len(x_ND):
        return _losses(x_ND, weight_VD, targets_N, cap)
    again = torch.is_grad_enabled()
    parts = []
    for x_CD, targets_C in zip(x_ND.split(chunk), targets_N.split(chunk), strict=True):
        values = x_CD, weight_VD, targets_C, cap
        parts.append(checkpoint(_losses, *values, use_reentrant=False) if again else _losses(*values))
    return torch.cat(parts)


def chunk_step(
    x_CD: Tensor, weight_VD: Tensor, targets_C: Tensor, scale: Tensor, cap: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum of a chunk's losses, the gradient of its states and that of its logits, both times `scale`.

    `x_CD` and `weight_VD` have the format of the product. Softmax is float32.
    """
    logits_CV = (x_CD @ weight_VD.t()).float()
    slope_CV = None
    if cap:
        tanh_CV = torch.tanh(logits_CV / cap)
        logits_CV, slope_CV = cap * tanh_CV, 1 - tanh_CV.square()
    kept_C1 = (targets_C != IGNORE_INDEX)[:, None]
    index_C1 = torch.where(kept_C1, targets_C[:, None], 0)
    lse_C1 = torch.logsumexp(logits_CV, dim=-1, keepdim=True)
    losses_C1 = torch.where(kept_C1, lse_C1 - logits_CV.gather(1, index_C1), 0.0)
    is_target_CV = torch.arange(logits_CV.shape[1], device=logits_CV.device) == index_C1
    probs_CV = (logits_CV - lse_C1).exp()
    grad_CV = torch.where(is_target_CV, probs_CV - 1, probs_CV) * torch.where(kept_C1, scale, 0.0)
    if slope_CV is not None:
        grad_CV = grad_CV * slope_CV
    grad_CV = grad_CV.to(x_CD.dtype)
    return losses_C1.sum(), grad_CV @ weight_VD, grad_CV


@dataclass(frozen=True)
class HeadLoss:
    """The mean loss behind the blocks, from two functions that may be compiled."""

    whole: Whole = whole_loss
    step: Step = chunk_step

    def __call__(self, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, chunk: int) -> Tensor:
        if chunk >= len(x_ND):
            return self.whole(x_ND, weight_VD, targets_N, cap)
        if not torch.is_grad_enabled():
            losses_N = token_losses(x_ND, weight_VD, targets_N, cap, chunk)
            return losses_N.sum() / (targets_N != IGNORE_INDEX).sum()
        return _ChunkedLoss.apply(x_ND, weight_VD, targets_N, cap, chunk, self.step)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, chunk: int, step: Step
    ) -> Tensor:
        device = x_ND.device.type
        cast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if cast else x_ND.dtype
        with torch.autocast(device, enabled=False):
            loss, *ctx.grads = _loss_and_grads(x_ND, weight_VD, targets_N, cap, chunk, step, dtype)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.grads is None:
            raise RuntimeError("the chunked loss keeps its gradients for one backward pass only")
        grads, ctx.grads = ctx.grads, None
        return *(tensor.mul_(grad.to(tensor.dtype)) for tensor in grads), None, None, None, None


def _loss_and_grads(
    x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, chunk: int, step: Step, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean loss and its gradients of states and head, those in the formats of states and head."""
    scale = 1 / (targets_N != IGNORE_INDEX).sum()
    weight = weight_VD.detach().to(dtype)
    grad_x_ND = torch.empty_like(x_ND)
    grad_weight_VD = torch.zeros(weight_VD.shape, dtype=torch.float32, device=weight_VD.device)
    total = torch.zeros((), device=x_ND.device)
    for start in range(0, len(x_ND), chunk):
        x_CD, targets_C = x_ND[start : start + chunk].to(dtype), targets_N[start : start + chunk]
        missing = chunk - len(x_CD)  # of the last chunk: padded, so that all have one shape and compile once
        if missing:
            x_CD = F.pad(x_CD, (0, 0, 0, missing))
            targets_C = F.pad(targets_C, (0, missing), value=IGNORE_INDEX)
        loss, grad_x_CD, grad_CV = step(x_CD, weight, targets_C, scale, cap)
        total += loss
        grad_x_ND[start : start + chunk] = grad_x_CD[: chunk - missing]
        grad_weight_VD += grad_CV.t() @ x_CD
    return total * scale, grad_x_ND, grad_weight_VD.to(weight_VD.dtype)


def _losses(x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float) -> Tensor:
    logits_NV = soft_cap(F.linear(x_ND, weight_VD).float(), cap)
    return F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE_INDEX, reduction="none")
