"""Presets for H100 and H200 machines: packed rows, 20 training tokens per parameter.

Those of the mission have a parallel residual, which no stock class of Hugging Face has; beside the ones that are meant
for release stands a `-seq` variant, whose sequential residual is Qwen3's: equally many parameters, and the weights load
into Qwen3ForCausalLM as they are.

Micro-batches hold 16,384 tokens and more, so that the GPU and not the launch of kernels is the limit; accumulation
makes the step. Attention is left to `auto`: on Hopper that is cuDNN's kernel, as fast as FlashAttention 3 within a few per cent
(arXiv 2407.08608), which is a package of its own: a preset that named it would stop where it is not installed.

Learning rate and weight decay of `h100-100m` are derived (`learning_rates.py`): model, tokens and batch lie within what
Step Law (arXiv 2503.04715) was fitted on. The others lie outside, the pilot in parameters, the -ddp8 presets in
their batch, two and four times the law's best, where the square root is no longer a guide (arXiv 2405.14578): they give
a rate between a third and a half of the law's. Sixteen canaries of each repeat count give the medians of their
exposure an interval.
"""

from typing import Any, Final

_DATASET: Final[dict[str, Any]] = {"sft_rows": 3_000, "eval_rows": 200}
_8K: Final[dict[str, Any]] = {"type": "bpe", "vocab_size": 8_192}
_32K: Final[dict[str, Any]] = {"type": "bpe", "vocab_size": 32_768}
_BLOCK: Final[dict[str, Any]] = {"parallel_residual": True, "qk_norm": True, "tie_embeddings": True}
_SEQUENTIAL: Final[dict[str, Any]] = {**_BLOCK, "parallel_residual": False}
_100M: Final[dict[str, Any]] = {
    "n_layer": 16,
    "n_head": 12,
    "n_kv_head": 4,
    "n_embd": 768,
    "sequence_len": 512,
}
_1B: Final[dict[str, Any]] = {
    "n_layer": 24,
    "n_head": 16,
    "n_kv_head": 4,
    "n_embd": 2_048,
    "sequence_len": 2_048,
}
_GUARDS: Final[dict[str, Any]] = {
    "canary_count": 16,
    "early_stop_patience": 4,
    "precision": "bf16",
    "loss_spike_rollback": True,
}
_SFT: Final[dict[str, Any]] = {
    "max_steps": 250,
    "device_batch_size": 32,
    "learning_rate": 1e-4,
    "warmup_steps": 20,
    "eval_every": 25,
    "checkpoint_every": 100,
    "early_stop_patience": 4,
    "precision": "bf16",
}
_SFT8: Final[dict[str, Any]] = {**_SFT, "device_batch_size": 4}
_EVAL: Final[dict[str, Any]] = {
    "fit": {"max_rows": 500, "max_new_tokens": 80},
    "eval": {"max_new_tokens": 120},
}
_LONG_EVAL: Final[dict[str, Any]] = {**_EVAL, "eval": {"max_new_tokens": 160}}


def _pilot() -> dict[str, Any]:
    """15.5M parameters, 328M tokens: minutes on one H100, and the whole path of a release."""
    return {
        "dataset": _DATASET,
        "tokenizer": _8K,
        "base": {
            "model": {
                **_BLOCK,
                "n_layer": 8,
                "n_head": 8,
                "n_kv_head": 2,
                "n_embd": 384,
                "sequence_len": 512,
            },
            **_GUARDS,
            "dataset_mode": "packed",
            "max_steps": 5_000,
            "device_batch_size": 128,
            "grad_accum_steps": 1,
            "learning_rate": 1e-3,
            "warmup_steps": 225,
            "val_fraction": 0.01,
            "eval_every": 250,
            "checkpoint_every": 500,
        },
        "sft": {**_SFT, "learning_rate": 2e-4},
        **_EVAL,
        "gate": {"profile": "first_release"},
        "resources": {"device": "cuda"},
    }


def _hundred_million(block: dict[str, Any]) -> dict[str, Any]:
    """107M parameters, 2.16B tokens on one GPU: the first model meant for release."""
    return {
        "dataset": _DATASET,
        "tokenizer": _8K,
        "base": {
            "model": {**block, **_100M},
            **_GUARDS,
            "dataset_mode": "packed",
            "max_steps": 33_000,
            "device_batch_size": 64,
            "grad_accum_steps": 2,
            "learning_rate": None,
            "weight_decay": None,
            "warmup_steps": 1_500,
            "val_fraction": 0.002,
            "eval_every": 1_375,
            "checkpoint_every": 1_000,
        },
        "sft": _SFT,
        **_EVAL,
        "gate": {"profile": "skill_release"},
        "resources": {"device": "cuda"},
    }


def _hundred_million_on_eight() -> dict[str, Any]:
    """The same model in an eighth of the steps, each eight times as large."""
    return {
        "dataset": _DATASET,
        "tokenizer": _8K,
        "base": {
            "model": {**_BLOCK, **_100M},
            **_GUARDS,
            "dataset_mode": "packed",
            "max_steps": 4_100,
            "device_batch_size": 64,
            "grad_accum_steps": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 200,
            "val_fraction": 0.002,
            "eval_every": 205,
            "checkpoint_every": 205,
        },
        "sft": _SFT8,
        **_EVAL,
        "gate": {"profile": "skill_release"},
        "resources": {"device": "cuda", "nproc_per_node": 8},
    }


def _billion_on_eight(block: dict[str, Any]) -> dict[str, Any]:
    """1.13B parameters, 22.6B tokens on eight GPUs.

    Blocks are computed again in the backward pass, which costs a third more operations and leaves room on GPUs with
    80 GB as well; where there are 141 GB, `base.gradient_checkpointing: false` fits too and is faster.
    """
    return {
        "dataset": _DATASET,
        "tokenizer": _32K,
        # Half again as long as an H200 machine is estimated to take: on anything slower the run should be thought over.
        "preflight": {"max_hours": 36},
        "base": {
            "model": {**block, **_1B},
            **_GUARDS,
            "dataset_mode": "sharded",
            "max_steps": 21_600,
            "device_batch_size": 8,
            "grad_accum_steps": 8,
            "gradient_checkpointing": True,
            "learning_rate": 5e-4,
            "warmup_steps": 1_000,
            "val_fraction": 0.0005,
            "eval_every": 900,
            "checkpoint_every": 250,
        },
        "sft": {**_SFT8, "learning_rate": 5e-5},
        **_LONG_EVAL,
        "gate": {"profile": "skill_release"},
        "resources": {"device": "cuda", "nproc_per_node": 8},
    }


GPU_SCALES: Final[dict[str, dict[str, Any]]] = {
    "h100-pilot": _pilot(),
    "h100-100m": _hundred_million(_BLOCK),
    "h100-100m-seq": _hundred_million(_SEQUENTIAL),
    "h100-100m-ddp8": _hundred_million_on_eight(),
    "h200-1b-ddp8": _billion_on_eight(_BLOCK),
    "h200-1b-ddp8-seq": _billion_on_eight(_SEQUENTIAL),
}
