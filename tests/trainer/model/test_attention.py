"""All forms of attention give the same numbers and gradients.

B rows, H query heads, K key/value heads, T queries, S keys, h head dim
"""

from collections.abc import Callable

import pytest
import torch
from picochat_contract.configs import AttentionBackend
from picochat_contract.errors import ContractError
from picochat_trainer.model.attention import (
    as_bias,
    attend,
    causal_block_mask,
    document_block_mask,
    flex_form,
    fused_attention,
    matmul_attention,
)
from picochat_trainer.model.context import document_ids, document_mask
from picochat_trainer.model.kernels import AttentionFacts, capability, has_fa3, select_kernel
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex

Heads = tuple[Tensor, Tensor, Tensor]
BOS = 3


def some_heads(queries: int, keys: int, n_kv_head: int, head_dim: int = 8) -> Heads:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, queries, head_dim, generator=generator),
        torch.randn(2, n_kv_head, keys, head_dim, generator=generator),
        torch.randn(2, n_kv_head, keys, head_dim, generator=generator),
    )


def some_documents(length: int) -> Tensor:
    tokens_BT = torch.randint(8, (2, length), generator=torch.Generator().manual_seed(1))
    return document_ids(tokens_BT, BOS)


def out_and_gradients(form: Callable[..., Tensor], heads: Heads) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in heads]
    out_BHTh = form(*leaves)
    weights_BHTh = torch.linspace(-1, 1, out_BHTh.numel(), device=out_BHTh.device).view_as(out_BHTh)
    gradients = torch.autograd.grad((out_BHTh.float() * weights_BHTh).sum(), leaves)
    return [tensor.float().cpu() for tensor in (out_BHTh.detach(), *gradients)]


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_causal_forms_agree(n_kv_head: int) -> None:
    heads = some_heads(11, 11, n_kv_head)
    for found, expected in zip(
        out_and_gradients(matmul_attention, heads), out_and_gradients(fused_attention, heads), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_bias_of_documents_is_their_mask() -> None:
    heads = some_heads(16, 16, 2)
    mask_BTS = document_mask(some_documents(16))
    found = out_and_gradients(lambda *leaves: matmul_attention(*leaves, as_bias(mask_BTS)), heads)
    expected = out_and_gradients(lambda *leaves: matmul_attention(*leaves, mask_BTS), heads)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


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


@pytest.mark.parametrize("n_kv_head", [1, 4])
@pytest.mark.parametrize("documents", [True, False])
def test_flex_agrees_with_the_matmul_form(
    n_kv_head: int, documents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not compiled, on the CPU: there PyTorch lets only its compiled kernel down, which has no backward pass."""
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *heads: None)
    monkeypatch.setattr(torch_flex, "_warn_once", lambda *args, **kwargs: None)
    heads, documents_BT = some_heads(150, 150, n_kv_head), some_documents(150)
    mask_BTS = document_mask(documents_BT) if documents else None
    blocks = document_block_mask(documents_BT) if documents else causal_block_mask(150, torch.device("cpu"))
    expected = out_and_gradients(lambda *leaves: matmul_attention(*leaves, mask_BTS), heads)
    found = out_and_gradients(lambda *leaves: flex_form(*leaves, blocks), heads)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n_kv_head", [1, 4])
@pytest.mark.parametrize("documents", [True, False])
@pytest.mark.parametrize("backend", ["auto", "math", "efficient", "flash", "cudnn", "flex", "fa3"])
def test_every_cuda_kernel_agrees_with_the_matmul_form(
    backend: AttentionBackend, documents: bool, n_kv_head: int
) -> None:
    device = torch.device("cuda", 0)
    facts = AttentionFacts(
        device="cuda",
        dtype=torch.bfloat16,
        head_dim=64,
        documents=documents,
        capability=capability(device),
        has_fa3=has_fa3(),
    )
    try:
        kernel = select_kernel(backend, facts)
    except ContractError as error:
        if backend in ("auto", "math"):  # these run everywhere
            raise
        pytest.skip(str(error))
    heads, documents_BT = some_heads(256, 256, n_kv_head, 64), some_documents(256)
    mask_BTS = document_mask(documents_BT) if documents else None
    on_cuda = tuple(tensor.to(device, torch.bfloat16) for tensor in heads)
    rounded = tuple(tensor.to(torch.bfloat16).float() for tensor in heads)

    def form(q_BHTh: Tensor, k_BKSh: Tensor, v_BKSh: Tensor) -> Tensor:
        if kernel.repeats_kv:
            k_BKSh, v_BKSh = (t.repeat_interleave(4 // n_kv_head, 1) for t in (k_BKSh, v_BKSh))
        if kernel.form == "flex":
            blocks = document_block_mask if documents else None
            ids = documents_BT.to(device)
            return flex_form(
                q_BHTh, k_BKSh, v_BKSh, blocks(ids) if blocks else causal_block_mask(256, device)
            )
        with kernel.scope():
            return fused_attention(q_BHTh, k_BKSh, v_BKSh, None if mask_BTS is None else mask_BTS.to(device))

    expected = out_and_gradients(lambda *leaves: matmul_attention(*leaves, mask_BTS), (*rounded,))
    for found, exact in zip(out_and_gradients(form, (*on_cuda,)), expected, strict=True):
        error = (found - exact).norm() / exact.norm()
        assert error < 0.02, error
