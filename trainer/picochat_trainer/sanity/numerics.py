"""Checks of the model's numbers: loss and weights at the start, bf16 against float32, cached against whole, Hugging Face's
class against ours, compiled against eager.

B rows, T tokens
"""

import importlib
import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor

from picochat_trainer.model import GPT
from picochat_trainer.model.cache import KVCache
from picochat_trainer.model.gpt import INIT_STD, choose_backend
from picochat_trainer.model.stock import stock_config
from picochat_trainer.sanity.check import Finding, judged, skipped
from picochat_trainer.sanity.setup import SEED, Setup
from picochat_trainer.training.compiled import LossModule, compile_pieces
from picochat_trainer.training.hardware import autocast, has_cpp_compiler

MAX_INIT_DISTANCE: Final = 2.0  # nats from ln V
STD_FACTOR: Final = 1.5
MIN_COSINE: Final = 0.99
CACHE_LIMITS: Final = {None: 1e-4, torch.bfloat16: 3e-2}
"""Largest difference of logits over the largest logit."""
HF_LIMIT: Final = 1e-4
COMPILE_LIMITS: Final = {None: 1e-3, torch.bfloat16: 3e-2}
ROWS: Final = 2


def check_init_loss(setup: Setup) -> Finding:
    """A fresh model knows nothing: its loss is that of guessing, and its embedding is drawn with the intended spread."""
    model = setup.model()
    tokens_BT = setup.tokens(8, model.config.sequence_len)
    with torch.no_grad(), autocast(setup.device, setup.dtype):
        loss = float(model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:]))
    std = float(model.model.embed_tokens.weight.detach().std())
    distance = abs(loss - math.log(setup.vocab))
    usual = INIT_STD / STD_FACTOR <= std <= INIT_STD * STD_FACTOR
    return judged(
        distance <= MAX_INIT_DISTANCE and usual,
        distance,
        f"|loss - ln V| <= {MAX_INIT_DISTANCE:g} nats, embedding std {INIT_STD:g} within a factor of {STD_FACTOR:g}",
        f"loss {loss:.3f}, ln V {math.log(setup.vocab):.3f}, embedding std {std:.4f}",
    )


def check_precision(setup: Setup) -> Finding:
    """All gradients are finite, and those of the chosen number format point where float32's do."""
    limit = f"all finite; cosine with float32 >= {MIN_COSINE:g}"
    exact = _gradient(setup, None)
    if not all(bool(tensor.isfinite().all()) for tensor in exact.values()):
        return judged(False, None, limit, f"float32 gradients that are not finite: {_not_finite(exact)}")
    if setup.dtype is None:
        return judged(
            True, 1.0, limit, "precision is float32: all gradients are finite, nothing to compare them with"
        )
    rounded = _gradient(setup, setup.dtype)
    bad = _not_finite(rounded)
    cosine = _cosine(exact, rounded) if not bad else None
    worst, lowest = min(
        ((name, _cosine({name: exact[name]}, {name: rounded[name]})) for name in exact),
        key=lambda pair: pair[1],
    )
    return judged(
        cosine is not None and cosine >= MIN_COSINE,
        cosine,
        limit,
        f"bf16 gradients that are not finite: {bad}"
        if bad
        else f"lowest of one tensor: {worst} {lowest:.4f}",
    )


def check_kv_cache(setup: Setup) -> Finding:
    """Logits of one token at a time with the cache are those of the whole row at once."""
    model = setup.model().eval()
    length = min(model.config.sequence_len, 48)
    tokens_BT = setup.tokens(ROWS, length)
    cache = KVCache.empty(model.config, ROWS, device=setup.device, dtype=setup.dtype or torch.float32)
    with torch.no_grad(), autocast(setup.device, setup.dtype):
        whole = model(tokens_BT).float()
        parts = []
        for first, last in [(0, length // 2), *((t, t + 1) for t in range(length // 2, length))]:
            parts.append(model(tokens_BT[:, first:last], cache).float())
            cache.advance(last - first)
    difference = _relative(torch.cat(parts, 1), whole)
    limit = CACHE_LIMITS[setup.dtype]
    return judged(
        difference <= limit,
        difference,
        f"<= {limit:g} of the largest logit",
        f"prompt of {length // 2} tokens, then {length - length // 2} one by one",
    )


def check_stock_mapping(setup: Setup) -> Finding:
    """The weights of a model with sequential residual, in the stock Hugging Face class, give equal logits in float32."""
    if importlib.util.find_spec("transformers") is None:
        return skipped('transformers is not installed (pip install "picochat[hf]")')
    changes = {
        "parallel_residual": False,
        "norm_type": "rmsnorm",
        "position_encoding": "rope",
        "activation": "swiglu",
        "logit_softcap": 0.0,
    }
    model = setup.model(**changes).eval()
    _spread_weights(model)
    stock = _stock(model)
    tokens_BT = setup.tokens(ROWS, 33)
    with torch.no_grad(), _exact_matmul():
        difference = _relative(stock(tokens_BT).logits, model(tokens_BT))
    own = setup.model_config.has_stock_class
    note = "" if own else "; the preset itself has no stock class, this is its form with sequential residual"
    return judged(
        difference <= HF_LIMIT,
        difference,
        f"<= {HF_LIMIT:g} of the largest logit",
        f"{type(stock).__name__} of the installed transformers{note}",
    )


def check_compile(setup: Setup) -> Finding:
    """Loss and gradients of the compiled pieces are those of the eager model."""
    if not (setup.include_compile or setup.on_gpu):
        return skipped("it takes most of a minute on a CPU; ask for it with --include-compile")
    if not setup.on_gpu and not has_cpp_compiler():
        return skipped("torch.compile needs a C++ compiler on a CPU, and there is no g++ or clang++")
    eager, compiled = _new_trainable(setup), _new_trainable(setup)
    compile_pieces(compiled)
    tokens_BT = setup.tokens(ROWS, eager.config.sequence_len)
    losses, gradients = [], []
    for model in (eager, compiled):
        with autocast(setup.device, setup.dtype):
            loss = LossModule(model)(tokens_BT[:, :-1], tokens_BT[:, 1:])
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(_gradients_of(model))
    difference = max(abs(losses[1] - losses[0]) / losses[0], _distance(gradients[1], gradients[0]))
    limit = COMPILE_LIMITS[setup.dtype]
    return judged(
        difference <= limit,
        difference,
        f"<= {limit:g} of loss and of the gradient's norm",
        f"loss {losses[0]:.5f} eager, {losses[1]:.5f} compiled",
    )


def _new_trainable(setup: Setup) -> GPT:
    model = setup.model().train()
    with autocast(setup.device, setup.dtype):
        choose_backend(model, setup.attn_backend, setup.device)
    return model


def _gradient(setup: Setup, dtype: torch.dtype | None) -> dict[str, Tensor]:
    model = setup.model().train()
    tokens_BT = setup.tokens(4, model.config.sequence_len)
    with autocast(setup.device, dtype):
        if dtype == setup.dtype:  # the reference takes what float32 has
            choose_backend(model, setup.attn_backend, setup.device)
        loss = model.loss(tokens_BT[:, :-1], tokens_BT[:, 1:])
    loss.backward()
    return _gradients_of(model)


def _gradients_of(model: GPT) -> dict[str, Tensor]:
    return {name: p.grad.double().cpu() for name, p in model.named_parameters() if p.grad is not None}


def _not_finite(gradients: dict[str, Tensor]) -> str:
    return ", ".join(name for name, tensor in gradients.items() if not tensor.isfinite().all())


def _cosine(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    dot = sum(float((left[name] * right[name]).sum()) for name in left)
    norms = math.prod(
        math.sqrt(sum(float(t.square().sum()) for t in side.values())) for side in (left, right)
    )
    return dot / norms if norms else 0.0


def _distance(found: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """By Euclidean norm, over that of the reference; infinite where a gradient is not finite."""
    squares = sum(float((found[name] - reference[name]).square().sum()) for name in reference)
    distance = math.sqrt(squares / sum(float(t.square().sum()) for t in reference.values()))
    return distance if math.isfinite(distance) else math.inf


def _relative(found: Tensor, reference: Tensor) -> float:
    difference = float((found - reference).abs().max() / reference.abs().max())
    return difference if math.isfinite(difference) else math.inf


@torch.no_grad()
def _spread_weights(model: GPT) -> None:
    """Far from their start, so that a norm, a scale or a transposition that is missing shows."""
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        width = parameter.shape[-1] if parameter.ndim == 2 else 1
        draw = torch.randn(parameter.shape, generator=generator) / math.sqrt(width)
        parameter.copy_(draw + (1.0 if parameter.ndim == 1 else 0.0) * 0.5)


def _stock(model: GPT) -> Any:
    """The stock class with the weights of `model`; raises where a name is missing or left over."""
    transformers = importlib.import_module("transformers")
    values = stock_config(model.config, model.vocab_size)
    name = values.pop("architectures")[0]
    config = getattr(transformers, name.replace("ForCausalLM", "Config"))(**values)
    stock = getattr(transformers, name)(config).eval()
    state = dict(model.state_dict())
    if model.config.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    stock.load_state_dict(state)
    return stock.to(next(model.parameters()).device)


@contextmanager
def _exact_matmul() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
