"""Rates of one device that a training step is held against: bf16 matmul, attention forms, optimizer steps, as JSON.

    python bench/gpu_kernels.py OUT_JSON [--smoke]     (started by bench/train_gpu.py)

Attention: forward and backward, causal, with grouped queries, in the shapes of `h100-100m` and `h200-1b-ddp8`; the math path is
the baseline, and each other form's output is compared with it. TFLOP/s count half of the square (causal) and 3.5 times the
forward pass. Optimizer: one step of AdamW and of Muon over the matrices of `h100-100m`, gradients given.
"""

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.scales import SCALES
from picochat_contract.spec import validated
from picochat_trainer.model import GPT
from picochat_trainer.training.optim import make_optimizer
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

# (rows, query heads, key/value heads, tokens, head dim)
SHAPES = {"100m": (64, 12, 4, 512, 64), "1b": (8, 16, 4, 2_048, 128)}
SMOKE_SHAPES = {"smoke": (2, 2, 1, 32, 16)}
BACKENDS = {
    "math": SDPBackend.MATH,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
Form = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = SMOKE_SHAPES if args.smoke else SHAPES
    result = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "matmul_tflops": matmul_tflops(device, 256 if args.smoke else 8_192),
        "attention": [row for name, shape in shapes.items() for row in attention(name, shape, device)],
        "optimizers": optimizers(device, smoke=args.smoke),
    }
    args.out.write_text(json.dumps(result), encoding="utf-8")


def matmul_tflops(device: str, size: int) -> float:
    """Best of several runs of a square bf16 product, as a training's matmuls are: hot and one after another."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    b = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = min(_times(lambda: a @ b, device, repeats=20))
    return 2 * size**3 / seconds / 1e12


def attention(name: str, shape: tuple[int, ...], device: str) -> list[dict[str, Any]]:
    B, H, K, T, h = shape
    options: dict[str, Any] = {"device": device, "dtype": torch.bfloat16, "requires_grad": True}
    q, k, v = (torch.randn(B, heads, T, h, **options) for heads in (H, K, K))
    flops = 3.5 * 4 * B * H * T * T * h / 2
    rows: list[dict[str, Any]] = []
    expected: Tensor | None = None
    for form_name, form in _forms(T, device).items():
        row: dict[str, Any] = {"shape": name, "form": form_name}
        try:
            out = form(q, k, v)
            expected = out.detach() if expected is None else expected
            row["max_difference"] = float((out.detach() - expected).abs().max())
            gradient = torch.randn_like(out)
            seconds = statistics.median(_times(lambda f=form, g=gradient: f(q, k, v).backward(g), device))
            row |= {"ms": 1e3 * seconds, "tflops": flops / seconds / 1e12}
        except Exception as error:  # a form that this device, build or shape has not: its line says why
            row["problem"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        rows.append(row)
    return rows


def optimizers(device: str, *, smoke: bool) -> list[dict[str, Any]]:
    """Milliseconds of one optimizer step; the gradients are random and already there."""
    settings = dict(SCALES["h100-100m"]["base"])
    if smoke:
        settings["model"] = {"n_layer": 1, "n_head": 2, "n_embd": 32, "sequence_len": 32}
    rows = []
    for name in ("adamw", "muon"):
        config = validated(BaseConfig, {**settings, "optimizer": name})
        model = _with_gradients(config.model, device)
        optimizer = make_optimizer(model, config, num_ranks=1)
        seconds = statistics.median(_times(optimizer.step, device))
        rows.append({"optimizer": name, "ms": 1e3 * seconds, "parameters": model.num_parameters()})
        del model, optimizer
    return rows


def _with_gradients(config: ModelConfig, device: str) -> GPT:
    model = GPT(config, 512)
    model.init_weights(1)
    model.to(device)
    for parameter in model.parameters():
        parameter.grad = 0.01 * torch.randn_like(parameter)
    return model


def _forms(num_tokens: int, device: str) -> dict[str, Form]:
    forms: dict[str, Form] = {name: _sdpa(backend) for name, backend in BACKENDS.items()}
    if device == "cuda":
        forms["flex, compiled"] = _flex(num_tokens, device)
    if importlib.util.find_spec("flash_attn_interface"):
        fa3 = importlib.import_module("flash_attn_interface")
        forms["fa3"] = lambda q, k, v: fa3.flash_attn_func(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), causal=True
        ).transpose(1, 2)
    return forms


def _sdpa(backend: SDPBackend) -> Form:
    def form(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    return form


def _flex(num_tokens: int, device: str) -> Form:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, num_tokens, num_tokens, device=device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask, enable_gqa=True)


def _times(work: Callable[[], object], device: str, repeats: int = 10) -> list[float]:
    """Seconds of each of `repeats` runs, after three that are not counted."""
    for _ in range(3):
        work()
    if device == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        events[0].record()
        for event in events[1:]:
            work()
            event.record()
        torch.cuda.synchronize()
        pairs = pairwise(events)
        return [before.elapsed_time(after) / 1e3 for before, after in pairs]
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
