"""Models with a stock class compute what that class computes; others are refused.

B rows, T tokens
"""

import itertools
from typing import Any

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.model import GPT
from picochat_trainer.model.stock import stock_config
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB = 97
SHAPES = [
    {"n_embd": 32, "n_head": 4, "n_kv_head": 1},
    {"n_embd": 32, "n_head": 4, "n_kv_head": 2},
    {"n_embd": 48, "n_head": 2, "mlp_hidden": 40},  # head_dim 24
    {"n_embd": 64, "n_head": 8, "n_kv_head": 4, "rope_theta": 5_000.0, "norm_eps": 1e-5},
]


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_logits_equal_the_stock_class(shape: dict[str, Any], tie_embeddings: bool, qk_norm: bool) -> None:
    values = {"n_layer": 2, "sequence_len": 32, "tie_embeddings": tie_embeddings, "qk_norm": qk_norm} | shape
    config = ModelConfig.model_validate(values)
    model = GPT(config, VOCAB).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():  # weights far from their start, so that a missing norm or scale shows
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    found = stock_config(config, VOCAB)
    stock: Any = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{k: v for k, v in found.items() if k != "architectures"})
    )
    assert [type(stock).__name__] == found["architectures"]
    state = dict(model.state_dict())
    if tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    stock.load_state_dict(state)
    tokens_BT = torch.randint(VOCAB, (3, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model(tokens_BT), stock.eval()(tokens_BT).logits, atol=2e-4, rtol=0)


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"norm_type": "layernorm"}, "norm_type layernorm"),
    ({"position_encoding": "learned"}, "position_encoding learned"),
    ({"activation": "gelu"}, "activation gelu"),
    ({"logit_softcap": 15.0}, "logit_softcap 15"),
    ({"parallel_residual": True}, "parallel_residual"),
]


@pytest.mark.parametrize(("changes", "reason"), OTHERS, ids=str)
def test_a_model_without_stock_class_is_refused_with_the_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ContractError, match=reason) as caught:
        stock_config(ModelConfig(**changes), VOCAB)
    assert caught.value.code is Code.INVALID_VALUE


def test_a_refusal_names_all_reasons() -> None:
    with pytest.raises(ContractError, match="activation relu2, parallel_residual; train a model without"):
        stock_config(ModelConfig(activation="relu2", parallel_residual=True), VOCAB)


def test_refusals_are_those_of_the_contract() -> None:
    for count in range(len(OTHERS) + 1):
        for chosen in itertools.combinations(OTHERS, count):
            config = ModelConfig(**{key: value for changes, _ in chosen for key, value in changes.items()})
            assert config.has_stock_class == (count == 0)
            if count:
                with pytest.raises(ContractError):
                    stock_config(config, VOCAB)
