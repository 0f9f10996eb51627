"""Stacks of matrices are made orthogonal."""

import pytest
import torch
from picochat_trainer.training.orthogonal import (
    NEWTON_SCHULZ,
    POLAR_EXPRESS,
    Polynomials,
    orthogonalize,
    orthogonalize_all,
    product_dtype,
)
from torch import Tensor


def matrices(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u @ vh


@pytest.mark.parametrize(("polynomials", "error"), [(POLAR_EXPRESS, 0.15), (NEWTON_SCHULZ, 0.35)])
def test_singular_values_end_near_one(polynomials: Polynomials, error: float) -> None:
    found = torch.linalg.svdvals(orthogonalize(matrices(3, 16, 64), polynomials))
    assert float((found - 1).abs().max()) < error


def test_singular_vectors_stay() -> None:
    stack = matrices(2, 16, 64)
    for matrix, found in zip(stack, orthogonalize(stack), strict=True):
        u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
        between = u.T @ found @ vh.T
        assert torch.allclose(between, torch.diag(between.diagonal()), atol=1e-4)


def test_a_small_singular_value_is_lifted_farther_than_by_newton_and_schulz() -> None:
    u, _, vh = torch.linalg.svd(matrices(16, 16))
    ill = (u @ torch.diag(torch.logspace(0, -2.5, 16)) @ vh)[None]
    least = [float(torch.linalg.svdvals(orthogonalize(ill, p)).min()) for p in (POLAR_EXPRESS, NEWTON_SCHULZ)]
    assert least[0] > 0.5
    assert least[0] > least[1] - 0.2


def test_matrices_of_all_shapes_come_back_in_their_order() -> None:
    mixed = [matrices(8, 24), matrices(24, 8), matrices(8, 8), 2 * matrices(8, 24)]
    found = orthogonalize_all(mixed, POLAR_EXPRESS, compiled=False)
    for matrix, result in zip(mixed, found, strict=True):
        assert result.shape == matrix.shape
        assert torch.allclose(result.double(), nearest_orthogonal(matrix), atol=0.1)


def test_a_matrix_of_zeros_stays_one() -> None:
    assert not orthogonalize(torch.zeros(1, 4, 8)).any()


def test_bfloat16_products_give_nearly_the_same() -> None:
    stack = matrices(2, 16, 64)
    found = orthogonalize(stack.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), orthogonalize(stack), atol=0.03)


def test_products_run_in_bfloat16_only_where_that_is_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picochat_trainer.training.hardware.cpu_has_bf16", lambda: True)
    assert product_dtype(torch.device("cpu")) == torch.bfloat16
    monkeypatch.setattr("picochat_trainer.training.hardware.cpu_has_bf16", lambda: False)
    assert product_dtype(torch.device("cpu")) == torch.float32


def test_it_is_one_graph_for_each_shape() -> None:
    """Traced as for a GPU, run without a compiler."""
    traced = torch.compile(orthogonalize, dynamic=False, fullgraph=True, backend="eager")
    for stack in (matrices(3, 8, 24), matrices(2, 8, 8)):
        assert torch.equal(traced(stack, POLAR_EXPRESS), orthogonalize(stack))
