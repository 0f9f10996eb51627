"""Which attention kernel runs, and what is said where the one that was asked for cannot."""

from typing import Any

import pytest
import torch
from picochat_contract.configs import AttentionBackend, ModelConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import attention_facts, choose_backend
from picochat_trainer.model.kernels import (
    FLEX,
    MATMUL,
    AttentionFacts,
    Kernel,
    cached_kernel,
    evaluation_kernel,
    has_fa3,
    select_kernel,
)
from torch.nn.attention import SDPBackend

HOPPER: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16, "head_dim": 128, "capability": 9}
CUDNN, FLASH, EFFICIENT, MATH = "CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"


def sdpa(*backends: str, repeats_kv: bool = False) -> Kernel:
    return Kernel(form="sdpa", backends=backends, repeats_kv=repeats_kv)


@pytest.mark.parametrize(
    ("backend", "changes", "expected"),
    [
        ("auto", {}, sdpa(CUDNN, FLASH, MATH)),
        ("auto", {"capability": 8}, sdpa(FLASH, MATH)),
        ("auto", {"capability": 10}, sdpa(FLASH, MATH)),
        ("auto", {"capability": 7}, sdpa(EFFICIENT, MATH, repeats_kv=True)),
        ("auto", {"dtype": torch.float32}, sdpa(EFFICIENT, MATH, repeats_kv=True)),
        ("auto", {"head_dim": 512}, sdpa(EFFICIENT, MATH, repeats_kv=True)),
        ("auto", {"documents": True}, FLEX),
        ("auto", {"documents": True, "dropout": True}, sdpa(EFFICIENT, MATH, repeats_kv=True)),
        ("auto", {"documents": True, "head_dim": 8}, sdpa(EFFICIENT, MATH, repeats_kv=True)),
        ("auto", {"device": "cpu", "documents": True}, MATMUL),
        ("math", {"device": "cpu"}, MATMUL),
        ("math", {"documents": True, "dropout": True}, sdpa(MATH)),
        ("efficient", {"dtype": torch.float32}, sdpa(EFFICIENT, repeats_kv=True)),
        ("flash", {}, sdpa(FLASH)),
        ("flash", {"capability": 8, "dropout": True}, sdpa(FLASH)),
        ("cudnn", {"head_dim": 256}, sdpa(CUDNN)),
        ("flex", {}, FLEX),
        ("fa3", {"has_fa3": True}, sdpa(FLASH)),
    ],
)
def test_the_kernel_that_is_taken(
    backend: AttentionBackend, changes: dict[str, Any], expected: Kernel
) -> None:
    assert select_kernel(backend, AttentionFacts(**HOPPER | changes)) == expected


NO_DEVICE, BAD_VALUE = Code.DEVICE_UNAVAILABLE, Code.INVALID_VALUE


@pytest.mark.parametrize(
    ("backend", "changes", "code", "message"),
    [
        ("flash", {"device": "cpu"}, NO_DEVICE, "needs CUDA"),
        ("fa3", {"device": "cpu"}, NO_DEVICE, "needs CUDA"),
        ("flex", {"device": "cpu"}, NO_DEVICE, "no backward pass on a CPU"),
        ("flash", {"documents": True}, BAD_VALUE, "document borders: take auto or flex"),
        ("cudnn", {"documents": True}, BAD_VALUE, "document borders"),
        ("flash", {"dtype": torch.float32}, BAD_VALUE, "set precision to bf16"),
        ("flash", {"capability": 7}, NO_DEVICE, "compute capability 8, this one has 7"),
        ("flash", {"head_dim": 320}, BAD_VALUE, "up to 256, got 320"),
        ("cudnn", {"capability": 8, "head_dim": 256}, BAD_VALUE, "up to 128, got 256"),
        ("cudnn", {"head_dim": 36}, BAD_VALUE, "divisible by 8, got 36"),
        ("flex", {"dropout": True}, BAD_VALUE, "no dropout"),
        ("flex", {"head_dim": 8}, BAD_VALUE, "at least 16, got 8"),
        ("fa3", {}, NO_DEVICE, "flash_attn_interface"),
        ("fa3", {"has_fa3": True, "capability": 10}, NO_DEVICE, "compute capability 9, this one has 10"),
        ("fa3", {"has_fa3": True, "dropout": True}, BAD_VALUE, "no dropout"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(
    backend: AttentionBackend, changes: dict[str, Any], code: Code, message: str
) -> None:
    with pytest.raises(ContractError, match=message) as caught:
        select_kernel(backend, AttentionFacts(**HOPPER | changes))
    assert (caught.value.code, caught.value.param) == (code, "attn_backend")


def test_evaluation_takes_no_compiled_kernel() -> None:
    assert evaluation_kernel(AttentionFacts(**HOPPER | {"documents": True})) == sdpa(repeats_kv=True)
    assert evaluation_kernel(AttentionFacts(**HOPPER)) == sdpa()
    assert evaluation_kernel(AttentionFacts(**HOPPER | {"device": "cpu"})) == MATMUL


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(0, sdpa()), (8, sdpa()), (9, sdpa()), (10, sdpa(EFFICIENT, MATH, repeats_kv=True))],
)
def test_a_cache_is_not_read_by_cudnn_where_that_gives_wrong_numbers(
    capability: int, expected: Kernel
) -> None:
    assert cached_kernel(capability) == expected


def test_names_of_kernels_are_pytorchs_and_hold_inside_the_scope_only() -> None:
    assert all(hasattr(SDPBackend, name) for name in (CUDNN, FLASH, EFFICIENT, MATH))
    before = torch.backends.cuda.flash_sdp_enabled()
    with sdpa(MATH).scope():
        assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled() == before


def test_the_facts_of_a_model_follow_its_number_format() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=32, dropout=0.1), 20)
    model.document_token = 0
    device = torch.device("cpu")
    facts = attention_facts(model, device)
    assert facts == AttentionFacts(
        device="cpu", dtype=torch.float32, head_dim=16, documents=True, dropout=True
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention_facts(model, device).dtype is torch.bfloat16


def test_a_refused_backend_leaves_the_model_as_it_was() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=32), 20)
    with pytest.raises(ContractError, match="needs CUDA"):
        choose_backend(model, "cudnn", "cpu")
    assert model.attn_backend == "auto"
    choose_backend(model, "math", "cpu")
    assert model.attn_backend == "math"


def test_fa3_is_not_there_without_its_package() -> None:
    assert not has_fa3()
