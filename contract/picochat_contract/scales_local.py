"""Presets for one machine without a data-centre GPU: from seconds to an afternoon.

From `pico` on, base steps are chosen for 20 training tokens per parameter (Hoffmann et al., arXiv 2203.15556), SFT
steps for three epochs of the generated rows. The learning rates are given: Step Law was fitted from 60M parameters on.
So is the accumulation, since the steps follow from it; `smoke` and `demo` leave theirs to the law, which asks for one.

They are also there to be learned from, each with the parts of its time: `smoke`, `tiny`, `small-local`, `pico` and `small` are
GPT-2's block (LayerNorm, learned positions, GELU), `medium`, `mps-local` and `climbmix-pilot` have RMSNorm, RoPE and squared ReLU
(Primer, arXiv 2109.08668), `demo` and the presets for GPUs have SwiGLU and grouped queries.
"""

from typing import Any, Final

_GENERATED: Final[dict[str, Any]] = {"sft_rows": 3_000, "eval_rows": 200}
_SFT: Final[dict[str, Any]] = {
    "max_steps": 500,
    "device_batch_size": 16,
    "learning_rate": 5e-4,
    "warmup_steps": 50,
    "eval_every": 50,
    "checkpoint_every": 100,
    "early_stop_patience": 4,
    "sample_prompt": "Who are you?",
}

_GPT2: Final[dict[str, Any]] = {
    "norm_type": "layernorm",
    "position_encoding": "learned",
    "activation": "gelu",
    "qk_norm": False,
}
_RELU2: Final[dict[str, Any]] = {"norm_type": "rmsnorm", "position_encoding": "rope", "activation": "relu2"}

LOCAL_SCALES: Final[dict[str, dict[str, Any]]] = {
    # Seconds: proves that every part is wired. Its model knows nothing.
    "smoke": {
        "dataset": {"sft_rows": 64, "eval_rows": 32},
        "tokenizer": {"type": "bpe", "vocab_size": 1_024, "min_freq": 1},
        "base": {
            "model": {**_GPT2, "n_layer": 1, "n_head": 4, "n_embd": 32, "sequence_len": 128},
            "max_steps": 40,
            "device_batch_size": 8,
            "learning_rate": 2e-3,
            "warmup_steps": 4,
            "eval_every": 20,
            "checkpoint_every": 10,
            "sample_tokens": 40,
            "compile": "off",
        },
        "sft": {
            "max_steps": 30,
            "device_batch_size": 8,
            "warmup_steps": 3,
            "eval_every": 15,
            "checkpoint_every": 10,
            "sample_tokens": 40,
            "compile": "off",
        },
        "fit": {"max_rows": 16, "max_new_tokens": 24},
        "eval": {"max_new_tokens": 24},
    },
    # Two minutes on two cores: the model of `make demo`, about 1M parameters.
    "demo": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 2_048},
        "base": {
            "model": {"n_layer": 4, "n_head": 2, "n_kv_head": 1, "n_embd": 128, "sequence_len": 256},
            # Nine epochs of the pydoc corpus. Measured on it: many small steps and a slow warm-up are worth 10 %
            # of bits per byte over half as many steps of twice the size.
            "max_steps": 480,
            "device_batch_size": 8,
            "learning_rate": 2e-3,
            "warmup_steps": 60,
            "eval_every": 80,
            "checkpoint_every": 80,
        },
        "sft": {
            "max_steps": 300,
            "device_batch_size": 32,
            "learning_rate": 2e-3,
            "eval_every": 50,
            "checkpoint_every": 100,
            "sample_prompt": "Who are you?",
        },
        "fit": {"max_rows": 100, "max_new_tokens": 48},
        "eval": {"max_new_tokens": 48},
    },
    # Two trials, small and a little less so, with the mission's steps.
    "tiny": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 1_024},
        "base": {
            "model": {**_GPT2, "n_layer": 2, "n_head": 4, "n_embd": 64, "sequence_len": 128},
            "max_steps": 300,
            "device_batch_size": 16,
            "grad_accum_steps": 1,
            "learning_rate": 2e-3,
            "eval_every": 50,
            "checkpoint_every": 100,
        },
        "sft": {**_SFT, "max_steps": 600, "learning_rate": 1e-3, "eval_every": 100},
        "fit": {"max_rows": 100, "max_new_tokens": 48},
        "eval": {"max_new_tokens": 48},
    },
    "small-local": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 1_024},
        "base": {
            "model": {**_GPT2, "n_layer": 3, "n_head": 4, "n_embd": 96, "sequence_len": 256},
            "max_steps": 800,
            "device_batch_size": 16,
            "grad_accum_steps": 1,
            "learning_rate": 2e-3,
            "eval_every": 100,
            "checkpoint_every": 200,
        },
        "sft": {**_SFT, "max_steps": 1_200, "eval_every": 150, "checkpoint_every": 300},
        "fit": {"max_rows": 100, "max_new_tokens": 48},
        "eval": {"max_new_tokens": 48},
    },
    # 0.46M parameters, 9.1M tokens: minutes on a laptop.
    "pico": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 1_024},
        "base": {
            "model": {**_GPT2, "n_layer": 3, "n_head": 4, "n_embd": 96, "sequence_len": 256},
            "max_steps": 4_450,
            "device_batch_size": 8,
            "grad_accum_steps": 1,
            "learning_rate": 1e-3,
            "warmup_steps": 200,
            "eval_every": 178,
            "checkpoint_every": 356,
            "early_stop_patience": 3,
            "canary_count": 3,
        },
        "sft": _SFT,
        "eval": {"max_new_tokens": 120},
        "gate": {"profile": "research"},
    },
    # 1.1M parameters, 22M tokens.
    "small": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 1_024},
        "base": {
            "model": {
                **_GPT2,
                "n_layer": 4,
                "n_head": 4,
                "n_embd": 128,
                "sequence_len": 512,
                "tie_embeddings": False,
            },
            "max_steps": 2_720,
            "device_batch_size": 16,
            "grad_accum_steps": 1,
            "learning_rate": 1e-3,
            "warmup_steps": 120,
            "eval_every": 136,
            "checkpoint_every": 272,
            "early_stop_patience": 3,
            "canary_count": 5,
        },
        "sft": _SFT,
        "eval": {"max_new_tokens": 160},
        "gate": {"profile": "research"},
    },
    # 3.4M parameters, 69M tokens.
    "medium": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 2_048},
        "base": {
            "model": {
                **_RELU2,
                "n_layer": 6,
                "n_head": 6,
                "n_embd": 192,
                "sequence_len": 512,
                "tie_embeddings": False,
            },
            "max_steps": 4_200,
            "device_batch_size": 16,
            "grad_accum_steps": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 190,
            "eval_every": 175,
            "checkpoint_every": 350,
            "early_stop_patience": 4,
            "canary_count": 5,
        },
        "sft": {**_SFT, "early_stop_patience": 5},
        "eval": {"max_new_tokens": 160},
        "gate": {"profile": "research"},
    },
    # 1.05M parameters, 21M tokens in larger steps. Name and shape are the mission's; there is no device mps: like the others
    # here it runs where the user says, on cpu or cuda.
    "mps-local": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 1_024},
        "base": {
            "model": {
                **_RELU2,
                "n_layer": 4,
                "n_head": 4,
                "n_embd": 128,
                "sequence_len": 512,
                "tie_embeddings": False,
            },
            "max_steps": 1_280,
            "device_batch_size": 32,
            "grad_accum_steps": 1,
            "learning_rate": 1e-3,
            "warmup_steps": 60,
            "eval_every": 64,
            "checkpoint_every": 128,
            "early_stop_patience": 4,
            "canary_count": 5,
        },
        "sft": {**_SFT, "early_stop_patience": 5},
        "eval": {"max_new_tokens": 160},
        "gate": {"profile": "research"},
    },
    # 5.8M parameters, 116M tokens of an imported corpus.
    "climbmix-pilot": {
        "dataset": _GENERATED,
        "tokenizer": {"type": "bpe", "vocab_size": 8_192},
        "base": {
            "model": {
                **_RELU2,
                "n_layer": 6,
                "n_head": 6,
                "n_embd": 192,
                "sequence_len": 512,
                "tie_embeddings": False,
            },
            "dataset_mode": "sharded",
            "max_steps": 3_540,
            "device_batch_size": 16,
            "grad_accum_steps": 4,
            "learning_rate": 1e-3,
            "warmup_steps": 160,
            "val_fraction": 0.01,
            "eval_every": 177,
            "checkpoint_every": 354,
            "early_stop_patience": 4,
            "canary_count": 16,
        },
        "sft": _SFT,
        "eval": {"max_new_tokens": 160},
        "gate": {"profile": "research"},
    },
}
