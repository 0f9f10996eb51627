"""Each check of kernels and numbers passes on a sound CPU, and fails where the thing it is about is broken."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from picochat_contract.spec import parse_mapping
from picochat_trainer.model import GPT, attention, gpt
from picochat_trainer.model.cache import KVCache
from picochat_trainer.model.loss import HeadLoss
from picochat_trainer.sanity import numerics
from picochat_trainer.sanity.attention import check_attention
from picochat_trainer.sanity.check import CheckStatus, Finding
from picochat_trainer.sanity.setup import Setup
from torch import Tensor, nn

Change = Callable[..., Setup]
BF16 = {"precision": "bf16", "dtype": torch.bfloat16}
CHECKS = (
    check_attention,
    numerics.check_init_loss,
    numerics.check_precision,
    numerics.check_kv_cache,
    numerics.check_stock_mapping,
)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("values", [{}, BF16])
def test_a_sound_machine_passes(
    changed: Change, check: Callable[[Setup], Finding], values: dict[str, Any]
) -> None:
    found = check(changed(**values))
    assert found.status is CheckStatus.PASS, found.message
    assert found.measured is not None


@pytest.mark.parametrize("scale", ["smoke", "medium", "h100-pilot", "h200-1b-ddp8"])
def test_presets_are_checked_in_a_form_that_a_cpu_can_compute(changed: Change, scale: str) -> None:
    setup = changed(preset=parse_mapping({"scale": scale}))
    full = parse_mapping({"scale": scale}).base.model
    assert setup.model_config.head_dim == full.head_dim
    assert setup.model_config.activation == full.activation
    assert numerics.check_kv_cache(setup).status is CheckStatus.PASS


class _Scaled(torch.autograd.Function):
    """Right in the forward pass, wrong in the backward pass."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 1.01


sound_attention = attention.matmul_attention


def _looks_ahead(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """The last query sees everything in any case; the first one too many."""
    seen = torch.ones(q.shape[0], q.shape[2], k.shape[2], dtype=torch.bool).tril(1)
    return sound_attention(q, k, v, seen, dropout)


def _forgets_documents(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, dropout: float = 0.0) -> Tensor:
    return sound_attention(q, k, v, None, dropout)


def _wrong_backward(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, dropout: float = 0.0) -> Tensor:
    return sound_attention(_Scaled.apply(q), k, v, mask, dropout)


def _not_a_number(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, dropout: float = 0.0) -> Tensor:
    return sound_attention(q, k, v, mask, dropout) * torch.nan


def _no_kernel(*_: Any) -> Tensor:
    raise RuntimeError("No available kernel. Aborting execution.")


@pytest.mark.parametrize(
    "broken", [_looks_ahead, _forgets_documents, _wrong_backward, _not_a_number, _no_kernel]
)
def test_a_broken_kernel_fails_the_attention_check(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, broken: Any
) -> None:
    monkeypatch.setattr(attention, "matmul_attention", broken)
    found = check_attention(setup)
    assert found.status is CheckStatus.FAIL
    assert "over the limit: " in found.message


def test_a_kernel_that_was_asked_for_and_is_not_there_fails(changed: Change) -> None:
    found = check_attention(changed(attn_backend="flash"))
    assert found.status is CheckStatus.FAIL
    assert "flash attention is not offered here" in found.message and "CUDA" in found.message


def test_an_init_that_is_too_wide_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt, "INIT_STD", 0.5)
    assert numerics.check_init_loss(setup).status is CheckStatus.FAIL


def test_an_init_that_gives_the_right_loss_from_too_small_weights_fails(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpt, "INIT_STD", 0.002)
    found = numerics.check_init_loss(setup)
    assert isinstance(found.measured, float) and found.measured < numerics.MAX_INIT_DISTANCE
    assert found.status is CheckStatus.FAIL


@pytest.mark.parametrize("factor", [0.0, torch.nan])
def test_gradients_that_bf16_loses_fail(
    changed: Change, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def broken(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, dropout: float = 0.0) -> Tensor:
        out = sound_attention(q, k, v, mask, dropout)
        return out if out.dtype is torch.float32 else out * factor

    monkeypatch.setattr(attention, "matmul_attention", broken)
    assert numerics.check_precision(changed(**BF16)).status is CheckStatus.FAIL


def test_a_cache_that_loses_a_token_fails(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = KVCache.advance

    def advance(self: KVCache, count: int) -> None:
        sound(self, count if count == 1 else count - 1)

    monkeypatch.setattr(KVCache, "advance", advance)
    assert numerics.check_kv_cache(setup).status is CheckStatus.FAIL


sound_rotate = gpt.rotate


@pytest.mark.parametrize(
    "rotate",
    [lambda x, cos, sin: sound_rotate(x, cos, -sin), lambda x, cos, sin: x],
    ids=["backwards", "not"],
)
def test_a_model_that_is_not_the_stock_class_fails(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, rotate: Any
) -> None:
    monkeypatch.setattr(gpt, "rotate", rotate)
    assert numerics.check_stock_mapping(setup).status is CheckStatus.FAIL


def test_without_transformers_the_mapping_is_skipped_with_the_reason(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numerics.importlib.util, "find_spec", lambda name: None)
    found = numerics.check_stock_mapping(setup)
    assert found.status is CheckStatus.SKIPPED
    assert "transformers is not installed" in found.message


def test_compile_is_skipped_on_a_cpu_unless_it_is_asked_for(setup: Setup) -> None:
    assert numerics.check_compile(setup).status is CheckStatus.SKIPPED


class _WrongLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sound = HeadLoss()

    def forward(self, *arguments: Any) -> Tensor:
        return self.sound(*arguments) * 1.01


class _NoGradient(_WrongLoss):
    def forward(self, *arguments: Any) -> Tensor:
        loss = self.sound(*arguments)
        loss.register_hook(lambda gradient: gradient * math.nan)
        return loss


@pytest.mark.parametrize(
    ("broken", "status"),
    [(None, CheckStatus.PASS), (_WrongLoss, CheckStatus.FAIL), (_NoGradient, CheckStatus.FAIL)],
)
def test_a_compiler_that_computes_something_else_fails(
    changed: Change,
    monkeypatch: pytest.MonkeyPatch,
    broken: type[_WrongLoss] | None,
    status: CheckStatus,
) -> None:
    """Stands for the compiler, which would take most of a minute; it is tried in tests of training.compiled."""

    def compile_pieces(model: GPT) -> None:
        if broken is not None:
            model.head_loss = broken()  # type: ignore[assignment]

    monkeypatch.setattr(numerics, "compile_pieces", compile_pieces)
    monkeypatch.setattr(numerics, "has_cpp_compiler", lambda: True)
    assert numerics.check_compile(changed(include_compile=True)).status is status
