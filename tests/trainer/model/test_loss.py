"""The loss in chunks against plain cross-entropy: values, gradients, memory.

N tokens, D model dim, V vocab
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.model.loss import IGNORE_INDEX, HeadLoss, chunk_size, token_losses
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NUM_TOKENS, DIM, VOCAB = 70, 24, 300
WHOLE = NUM_TOKENS
CHUNKS = [7, 16, 35]  # of which 16 leaves a shorter last one


def inputs(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(NUM_TOKENS, DIM, generator=generator) * scale
    weight_VD = torch.randn(VOCAB, DIM, generator=generator) * scale
    targets_N = torch.randint(VOCAB, (NUM_TOKENS,), generator=generator)
    targets_N[::3] = IGNORE_INDEX
    return x_ND.requires_grad_(), weight_VD.requires_grad_(), targets_N


def loss_and_gradients(chunk: int, cap: float, *, bf16: bool = False) -> list[Tensor]:
    x_ND, weight_VD, targets_N = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = HeadLoss()(x_ND, weight_VD, targets_N, cap, chunk)
    assert loss.dtype == torch.float32
    gradients = torch.autograd.grad(loss * 3.0, (x_ND, weight_VD))  # a factor, as accumulation has
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return [loss.detach(), *gradients]


def plain(cap: float) -> list[Tensor]:
    x_ND, weight_VD, targets_N = inputs()
    logits_NV = x_ND @ weight_VD.t()
    logits_NV = cap * torch.tanh(logits_NV / cap) if cap else logits_NV
    loss = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE_INDEX)
    return [loss.detach(), *torch.autograd.grad(loss * 3.0, (x_ND, weight_VD))]


@pytest.mark.parametrize("cap", [0.0, 5.0])
@pytest.mark.parametrize("chunk", [WHOLE, *CHUNKS])
def test_gradients_are_those_of_plain_cross_entropy(chunk: int, cap: float) -> None:
    for found, expected in zip(loss_and_gradients(chunk, cap), plain(cap), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("cap", [0.0, 5.0])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_bf16_gradients_are_no_worse_than_in_one_piece(chunk: int, cap: float) -> None:
    exact = plain(cap)
    for in_chunks, in_one, right in zip(
        loss_and_gradients(chunk, cap, bf16=True),
        loss_and_gradients(WHOLE, cap, bf16=True),
        exact,
        strict=True,
    ):
        error, usual = ((found - right).norm() / right.norm() for found in (in_chunks, in_one))
        assert error < 0.02
        assert error < 1.5 * usual + 1e-3


@pytest.mark.parametrize("chunk", [WHOLE, *CHUNKS])
def test_without_gradients_the_value_is_the_same(chunk: int) -> None:
    x_ND, weight_VD, targets_N = inputs()
    with torch.no_grad():
        loss = HeadLoss()(x_ND, weight_VD, targets_N, 5.0, chunk)
        losses_N = token_losses(x_ND, weight_VD, targets_N, 5.0, chunk)
    torch.testing.assert_close(loss, plain(5.0)[0])
    assert torch.equal(losses_N[::3], torch.zeros_like(losses_N[::3]))
    torch.testing.assert_close(losses_N.sum() / (targets_N != IGNORE_INDEX).sum(), loss)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_losses_of_tokens_have_gradients_in_chunks_too(chunk: int) -> None:
    x_ND, weight_VD, targets_N = inputs()
    losses_N = token_losses(x_ND, weight_VD, targets_N, 5.0, chunk)
    mean = losses_N.sum() / (targets_N != IGNORE_INDEX).sum()
    found = [mean.detach(), *torch.autograd.grad(mean * 3.0, (x_ND, weight_VD))]
    for one, expected in zip(found, plain(5.0), strict=True):
        torch.testing.assert_close(one, expected, atol=1e-6, rtol=1e-5)


def test_a_second_backward_pass_is_refused() -> None:
    loss = HeadLoss()(*inputs(), 0.0, 16)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass only"):
        loss.backward()


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_a_model_learns_the_same_in_chunks(tie_embeddings: bool) -> None:
    tokens_BT = torch.randint(97, (3, 16), generator=torch.Generator().manual_seed(0))
    gradients = []
    for wanted in (None, 16):
        model = GPT(
            ModelConfig(n_layer=2, n_head=2, n_embd=32, sequence_len=16, tie_embeddings=tie_embeddings), 97
        )
        model.init_weights(1)
        model.loss_chunk_tokens = wanted
        model.loss(tokens_BT, tokens_BT.roll(-1, 1)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(chunked, whole, atol=1e-6, rtol=1e-4)


class LargestFloat32(TorchDispatchMode):
    """Records the largest float32 tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, Tensor) and tensor.dtype == torch.float32:
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize(("wanted", "expected"), [(None, 1024 * 8192), (128, 128 * 8192)])
def test_float32_logits_of_a_whole_batch_are_never_held(wanted: int | None, expected: int) -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embd=16, sequence_len=512), 8192)
    model.init_weights(1)
    model.loss_chunk_tokens = wanted
    tokens_BT = torch.randint(8192, (2, 512), generator=torch.Generator().manual_seed(0))
    assert tokens_BT.numel() * 8192 == 1024 * 8192
    with LargestFloat32() as seen, torch.autocast("cpu", dtype=torch.bfloat16):
        model.loss(tokens_BT, tokens_BT).backward()
    assert seen.numel == expected


@pytest.mark.parametrize(
    ("tokens", "vocab", "device", "wanted", "expected"),
    [
        (4096, 4096, "cpu", None, 4096),  # 64 MiB
        (4097, 4096, "cpu", None, 2049),
        (32_768, 8192, "cuda", None, 16_384),  # h100-100m: two chunks of 512 MiB
        (65_536, 32_768, "cuda", None, 4096),
        (32_768, 4096, "cuda", None, 32_768),
        (65_537, 32_768, "cuda", None, 3856),
        (1000, 10**9, "cpu", None, 16),
        (1000, 50, "cpu", 400, 334),
        (1000, 50, "cpu", 16, 16),
        (10, 50, "cpu", 16, 10),
    ],
)
def test_chunks_are_equal_and_as_large_as_allowed(
    tokens: int, vocab: int, device: str, wanted: int | None, expected: int
) -> None:
    found = chunk_size(tokens, vocab, device, wanted)
    assert found == expected
    assert math.ceil(tokens / found) * found - tokens < found
