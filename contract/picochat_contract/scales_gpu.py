"""Presets for H100 and H200 machines: packed rows, parallel residual, 20 training tokens per parameter.

Micro-batches hold 16,384 tokens and more, so that the GPU and not the launch of kernels is the limit; accumulation
makes the step. The learning rates are between a third and a half of Step Law's (arXiv 2503.04715). Sixteen canaries of
each repeat count give the medians of their exposure an interval.
"""

from typing import Any, Final

_DATASET: Final[dict[str, Any]] = {"sft_rows": 3_000, "eval_rows": 200}
_BLOCK: Final[dict[str, Any]] = {"parallel_residual": True, "qk_norm": True, "tie_embeddings": True}
_100M: Final[dict[str, Any]] = {
    **_BLOCK,
    "n_layer": 16,
    "n_head": 12,
    "n_kv_head": 4,
    "n_embd": 768,
    "sequence_len": 512,
}
_EVAL: Final[dict[str, Any]] = {
    "fit": {"max_rows": 500, "max_new_tokens": 80},
    "eval": {"max_new_tokens": 120},
}

GPU_SCALES: Final[dict[str, dict[str, Any]]] = {
    # 15.5M parameters, 328M tokens: minutes on one H100, and the whole path of a release.
    "h100-pilot": {
        "dataset": _DATASET,
        "tokenizer": {"type": "bpe", "vocab_size": 8_192},
        "base": {
            "model": {
                **_BLOCK,
                "n_layer": 8,
                "n_head": 8,
                "n_kv_head": 2,
                "n_embd": 384,
                "sequence_len": 512,
            },
            "dataset_mode": "packed",
            "canary_count": 16,
            "max_steps": 5_000,
            "device_batch_size": 128,
            "learning_rate": 1e-3,
            "warmup_steps": 225,
            "val_fraction": 0.01,
            "eval_every": 250,
            "checkpoint_every": 500,
            "early_stop_patience": 4,
            "precision": "bf16",
            "loss_spike_rollback": True,
        },
        "sft": {
            "max_steps": 250,
            "device_batch_size": 32,
            "learning_rate": 2e-4,
            "warmup_steps": 20,
            "eval_every": 25,
            "checkpoint_every": 100,
            "early_stop_patience": 4,
            "precision": "bf16",
        },
        **_EVAL,
        "gate": {"profile": "first_release"},
        "resources": {"device": "cuda"},
    },
    # 107M parameters, 2.16B tokens on one GPU: the first model meant for release.
    "h100-100m": {
        "dataset": _DATASET,
        "tokenizer": {"type": "bpe", "vocab_size": 8_192},
        "base": {
            "model": _100M,
            "dataset_mode": "packed",
            "canary_count": 16,
            "max_steps": 33_000,
            "device_batch_size": 64,
            "grad_accum_steps": 2,
            "learning_rate": 8e-4,
            "warmup_steps": 1_500,
            "val_fraction": 0.002,
            "eval_every": 1_375,
            "checkpoint_every": 1_000,
            "early_stop_patience": 4,
            "precision": "bf16",
            "loss_spike_rollback": True,
        },
        "sft": {
            "max_steps": 250,
            "device_batch_size": 32,
            "learning_rate": 1e-4,
            "warmup_steps": 20,
            "eval_every": 25,
            "checkpoint_every": 100,
            "early_stop_patience": 4,
            "precision": "bf16",
        },
        **_EVAL,
        "gate": {"profile": "skill_release"},
        "resources": {"device": "cuda"},
    },
    # The same model in an eighth of the steps, each eight times as large.
    "h100-100m-ddp8": {
        "dataset": _DATASET,
        "tokenizer": {"type": "bpe", "vocab_size": 8_192},
        "base": {
            "model": _100M,
            "dataset_mode": "packed",
            "canary_count": 16,
            "max_steps": 4_100,
            "device_batch_size": 64,
            "grad_accum_steps": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 200,
            "val_fraction": 0.002,
            "eval_every": 205,
            "checkpoint_every": 205,
            "early_stop_patience": 4,
            "precision": "bf16",
        },
        "sft": {
            "max_steps": 250,
            "device_batch_size": 4,
            "learning_rate": 1e-4,
            "warmup_steps": 20,
            "eval_every": 25,
            "checkpoint_every": 100,
            "early_stop_patience": 4,
            "precision": "bf16",
        },
        **_EVAL,
        "gate": {"profile": "skill_release"},
        "resources": {"device": "cuda", "nproc_per_node": 8},
    },
    # 1.13B parameters, 22.6B tokens on eight GPUs with 141 GB each.
    "h200-1b-ddp8": {
        "dataset": _DATASET,
        "tokenizer": {"type": "bpe", "vocab_size": 32_768},
        "base": {
            "model": {
                **_BLOCK,
                "n_layer": 24,
                "n_head": 16,
                "n_kv_head": 4,
                "n_embd": 2_048,
                "sequence_len": 2_048,
            },
            "dataset_mode": "sharded",
            "canary_count": 16,
            "max_steps": 21_600,
            "device_batch_size": 8,
            "grad_accum_steps": 8,
            "learning_rate": 5e-4,
            "warmup_steps": 1_000,
            "val_fraction": 0.0005,
            "eval_every": 900,
            "checkpoint_every": 250,
            "early_stop_patience": 4,
            "precision": "bf16",
        },
        "sft": {
            "max_steps": 250,
            "device_batch_size": 4,
            "learning_rate": 5e-5,
            "warmup_steps": 20,
            "eval_every": 25,
            "checkpoint_every": 100,
            "early_stop_patience": 4,
            "precision": "bf16",
        },
        "fit": {"max_rows": 500, "max_new_tokens": 80},
        "eval": {"max_new_tokens": 160},
        "gate": {"profile": "skill_release"},
        "resources": {"device": "cuda", "nproc_per_node": 8},
    },
}
