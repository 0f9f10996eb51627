"""Scale presets: values that a run spec's `scale` fills in below the user's own."""

from typing import Any

SCALES: dict[str, dict[str, Any]] = {
    # Seconds: proves that every part is wired. Its model knows nothing.
    "smoke": {
        "dataset": {"sft_rows": 64, "eval_rows": 32},
        "tokenizer": {"type": "bpe", "vocab_size": 512},
        "base": {
            "model": {"n_layer": 1, "n_head": 2, "n_embd": 32, "sequence_len": 128},
            "max_steps": 40,
            "device_batch_size": 4,
            "warmup_steps": 4,
            "eval_every": 20,
            "checkpoint_every": 10,
            "sample_tokens": 40,
            "compile": "off",
        },
        "sft": {
            "max_steps": 30,
            "device_batch_size": 4,
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
        "dataset": {"sft_rows": 3000, "eval_rows": 200},
        "tokenizer": {"type": "bpe", "vocab_size": 2048},
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
}
