"""The nearest orthogonal matrix of each matrix in a stack, found with matrix products only.

With X = U S V^T, odd polynomials of X that push all singular values S to one give U V^T without a decomposition. The
products run in bfloat16 where the device computes it natively: both sets of polynomials were made to bear it.

K matrices, M rows, N columns, M <= N
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from picochat_trainer.training.hardware import autocast_dtype

_LEAST_NORM = 1e-7


@dataclass(frozen=True)
class Polynomials:
    """What is applied to a matrix: a x + b x^3 + c x^5, once with each of `coefficients`."""

    coefficients: tuple[tuple[float, float, float], ...]
    margin: float
    """The matrix is first divided by its Frobenius norm times this, so that rounding puts no singular value over one."""


NEWTON_SCHULZ = Polynomials(coefficients=((3.4445, -4.7750, 2.0315),) * 5, margin=1.0)
"""Jordan et al. 2024: ends with singular values between 0.7 and 1.2."""

POLAR_EXPRESS = Polynomials(
    coefficients=(
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
    margin=1.02,
)
"""Amsel et al., arXiv 2505.16932: the best of each degree in turn; five steps, safety factor 2e-2, cushion 2."""


def product_dtype(device: torch.device) -> torch.dtype:
    """The number format of the products on `device`."""
    return autocast_dtype("auto", str(device)) or torch.float32


def orthogonalize(x_KMN: Tensor, polynomials: Polynomials = POLAR_EXPRESS) -> Tensor:
    """Each matrix of the stack made orthogonal, in the number format it comes in."""
    norm_K11 = torch.linalg.vector_norm(x_KMN, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x_KMN = (x_KMN / (norm_K11 * polynomials.margin).clamp(min=_LEAST_NORM)).to(x_KMN.dtype)
    for a, b, c in polynomials.coefficients:
        gram_KMM = x_KMN @ x_KMN.mT
        factor_KMM = torch.baddbmm(gram_KMM, gram_KMM, gram_KMM, beta=b, alpha=c)
        x_KMN = torch.baddbmm(x_KMN, factor_KMM, x_KMN, beta=a)
    return x_KMN


def orthogonalize_all(matrices: list[Tensor], polynomials: Polynomials, *, compiled: bool) -> list[Tensor]:
    """The same for matrices of any shapes, in their order; those of one shape, lying or standing, go together."""
    function = _compiled() if compiled else orthogonalize
    stacks: dict[tuple[int, int], list[int]] = {}
    for index, matrix in enumerate(matrices):
        stacks.setdefault((min(matrix.shape), max(matrix.shape)), []).append(index)
    found = list(matrices)
    for indices in stacks.values():
        stack_KMN = torch.stack([_lying(matrices[index]) for index in indices])
        for index, result in zip(indices, function(stack_KMN, polynomials), strict=True):
            found[index] = result.mT if matrices[index].shape[0] > matrices[index].shape[1] else result
    return found


def _lying(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


@cache
def _compiled() -> Callable[[Tensor, Polynomials], Tensor]:
    """Compiles once for each shape of a stack: `dynamic=False`."""
    return torch.compile(orthogonalize, dynamic=False, fullgraph=True)
