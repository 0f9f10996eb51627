"""The Hugging Face config of a model whose weights map one to one to a stock class."""

from typing import Any

from picochat_contract.configs import ModelConfig
from picochat_contract.errors import Code, ContractError


def stock_config(config: ModelConfig, vocab_size: int) -> dict[str, Any]:
    """Values of config.json for Qwen3ForCausalLM, or LlamaForCausalLM without QK norm.

    Raises `invalid_value` where no stock class computes the same, with all reasons. Token ids are the tokenizer's to add.
    """
    if not config.has_stock_class:
        raise ContractError(
            Code.INVALID_VALUE,
            f"no stock Hugging Face class has {', '.join(_unlike_stock(config))}; train a model without that to export it",
            param="model",
        )
    name, model_type = ("Qwen3ForCausalLM", "qwen3") if config.qk_norm else ("LlamaForCausalLM", "llama")
    values = {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": vocab_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.sequence_len,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }
    return values if config.qk_norm else {**values, "mlp_bias": False}


def _unlike_stock(config: ModelConfig) -> list[str]:
    reasons = {
        f"norm_type {config.norm_type} without biases": config.norm_type != "rmsnorm",
        f"position_encoding {config.position_encoding}": config.position_encoding != "rope",
        f"activation {config.activation}": config.activation != "swiglu",
        f"logit_softcap {config.logit_softcap:g}": config.logit_softcap != 0,
        "parallel_residual": config.parallel_residual,
    }
    return [reason for reason, holds in reasons.items() if holds]
