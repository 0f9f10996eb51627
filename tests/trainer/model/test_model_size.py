"""The contract's arithmetic of a model's size is that of the model."""

import itertools
from typing import Any

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_contract.model_size import (
    flops_per_token,
    num_body_parameters,
    num_matrix_parameters,
    num_parameters,
    vocab_size,
)
from picochat_contract.scales import SCALES
from picochat_contract.spec import parse_mapping
from picochat_trainer.model import GPT

SHAPES: list[dict[str, Any]] = [
    {},
    {"tie_embeddings": False},
    {"n_head": 8, "n_kv_head": 2},
    {"parallel_residual": True, "qk_norm": False},
    {"n_embd": 96, "n_head": 4, "n_layer": 3, "mlp_hidden": 200},
    {"n_embd": 768, "n_head": 12, "n_kv_head": 4, "n_layer": 2, "parallel_residual": True},
]


OPTIONS: dict[str, list[Any]] = {
    "norm_type": ["rmsnorm", "layernorm"],
    "position_encoding": ["rope", "learned"],
    "activation": ["swiglu", "gelu", "relu2"],
    "logit_softcap": [0.0, 15.0],
    "tie_embeddings": [True, False],
    "parallel_residual": [True, False],
    "qk_norm": [True, False],
    "n_kv_head": [None, 2],
}


def built(config: ModelConfig, vocab: int) -> GPT:
    with torch.device("meta"):  # shapes without memory
        return GPT(config, vocab)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("vocab", [260, 1_000])
def test_parameters_and_operations_are_those_of_the_built_model(shape: dict[str, Any], vocab: int) -> None:
    config = ModelConfig(**shape)
    model = built(config, vocab)
    assert num_parameters(config, vocab) == model.num_parameters()
    assert flops_per_token(config, vocab) == model.flops_per_token()
    body = [p for name, p in model.named_parameters() if "embed_tokens" not in name and "lm_head" not in name]
    assert num_body_parameters(config) == sum(p.numel() for p in body)
    assert num_matrix_parameters(config) == sum(p.numel() for p in body if p.ndim == 2)


def test_every_combination_of_options_is_counted_right() -> None:
    for values in itertools.product(*OPTIONS.values()):
        shape = dict(zip(OPTIONS, values, strict=True))
        config = ModelConfig(n_layer=2, n_head=4, n_embd=64, sequence_len=32, **shape)
        model = built(config, 300)
        assert num_parameters(config, 300) == model.num_parameters(), shape
        assert flops_per_token(config, 300) == model.flops_per_token(), shape
        matrices = (p for name, p in model.named_parameters() if "layers." in name and p.ndim == 2)
        assert num_matrix_parameters(config) == sum(p.numel() for p in matrices), shape


@pytest.mark.parametrize("activation", ["swiglu", "gelu", "relu2"])
@pytest.mark.parametrize("position_encoding", ["rope", "learned"])
def test_operations_are_six_per_multiplied_number_and_those_of_attention(
    activation: str, position_encoding: str
) -> None:
    shape = {"activation": activation, "position_encoding": position_encoding, "mlp_hidden": 128}
    config = ModelConfig.model_validate({"n_layer": 2, "n_head": 4, "n_embd": 64, "sequence_len": 32} | shape)
    matrices = 2 * (4 * 64 * 64 + (3 if activation == "swiglu" else 2) * 64 * 128) + 300 * 64
    attention = 12 * 2 * 64 * 32  # 2 layers, width 64, context 32
    model = built(config, 300)
    assert model.flops_per_token() == 6 * matrices + attention
    assert model.flops_per_token_causal() == 6 * matrices + attention // 2


@pytest.mark.parametrize("scale", SCALES)
def test_presets_have_as_many_parameters_as_their_preflight_says(scale: str) -> None:
    spec = parse_mapping({"scale": scale})
    vocab = vocab_size(spec.tokenizer)
    assert num_parameters(spec.base.model, vocab) == built(spec.base.model, vocab).num_parameters()
