"""Both forms of attention give the same numbers."""

import pytest
import torch
from picochat_trainer.model.attention import attend, fused_attention, matmul_attention
from torch import Tensor


def some_heads(queries: int, keys: int, n_kv_head: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, queries, 8, generator=generator),
        torch.randn(2, n_kv_head, keys, 8, generator=generator),
        torch.randn(2, n_kv_head, keys, 8, generator=generator),
    )


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_causal_forms_agree(n_kv_head: int) -> None:
    heads = some_heads(11, 11, n_kv_head)
    torch.testing.assert_close(matmul_attention(*heads), fused_attention(*heads), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_masked_forms_agree(n_kv_head: int) -> None:
    heads = some_heads(3, 11, n_kv_head)
    positions_BT = torch.tensor([[4, 5, 6], [8, 9, 10]])
    mask_BTS = torch.arange(11) <= positions_BT[:, :, None]
    torch.testing.assert_close(
        matmul_attention(*heads, mask_BTS), fused_attention(*heads, mask_BTS), atol=1e-6, rtol=1e-5
    )


def test_cpu_takes_the_matmul_form() -> None:
    heads = some_heads(5, 5, 2)
    assert torch.equal(attend(*heads), matmul_attention(*heads))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_the_cpu() -> None:
    heads = some_heads(16, 16, 2)
    q_BHTh, k_BKSh, v_BKSh = (tensor.cuda() for tensor in heads)
    on_cuda = attend(q_BHTh, k_BKSh, v_BKSh).cpu()
    torch.testing.assert_close(on_cuda, attend(*heads), atol=1e-4, rtol=1e-3)
