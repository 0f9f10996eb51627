"""The GPT against Hugging Face's classes and its own promises.

B rows, T tokens, V vocab
"""

import math
from typing import Any

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

VOCAB = 97
SMALL = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, sequence_len=32)


def build(config: ModelConfig = SMALL, seed: int = 1) -> GPT:
    model = GPT(config, VOCAB)
    model.init_weights(seed)
    return model.eval()


def some_tokens(rows: int = 3, length: int = 17) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


def stock_model(config: ModelConfig) -> Any:
    values: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": config.n_embd,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.sequence_len,
        "rms_norm_eps": config.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
    }
    stock: Any = (
        Qwen3ForCausalLM(Qwen3Config(**values)) if config.qk_norm else LlamaForCausalLM(LlamaConfig(**values))
    )
    return stock.eval()


def stock_state(config: ModelConfig, model: GPT) -> dict[str, Tensor]:
    state = dict(model.state_dict())
    if config.tie_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return state


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("n_kv_head", [1, 2, None])
def test_logits_equal_hugging_face(qk_norm: bool, tie_embeddings: bool, n_kv_head: int | None) -> None:
    config = ModelConfig(
        n_layer=2,
        n_head=4,
        n_kv_head=n_kv_head,
        n_embd=32,
        sequence_len=32,
        qk_norm=qk_norm,
        tie_embeddings=tie_embeddings,
        rope_theta=5_000.0,
        norm_eps=1e-5,
    )
    model = build(config)
    with torch.no_grad():  # weights far from their start, so that a missing norm or scale shows
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) * 0.3)
    stock = stock_model(config)
    stock.load_state_dict(stock_state(config, model))
    tokens_BT = some_tokens()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens_BT), stock(tokens_BT).logits, atol=1e-4, rtol=0)


def test_state_dict_has_hugging_face_names_and_no_tied_head() -> None:
    stock_names = set(stock_model(SMALL).state_dict()) - {"lm_head.weight"}
    assert set(build().state_dict()) == stock_names
    assert "lm_head.weight" in build(SMALL.model_copy(update={"tie_embeddings": False})).state_dict()


def test_parallel_residual_differs_from_sequential_and_stays_causal() -> None:
    model = build(SMALL.model_copy(update={"parallel_residual": True}))
    tokens_BT = some_tokens()
    changed_BT = tokens_BT.clone()
    changed_BT[:, 9:] = (changed_BT[:, 9:] + 1) % VOCAB
    with torch.no_grad():
        logits_BTV, changed_BTV = model(tokens_BT), model(changed_BT)
        assert not torch.allclose(logits_BTV, build()(tokens_BT), atol=1e-4)
    torch.testing.assert_close(logits_BTV[:, :9], changed_BTV[:, :9])
    assert not torch.allclose(logits_BTV[:, 9:], changed_BTV[:, 9:], atol=1e-4)


def test_init_depends_on_the_seed_alone() -> None:
    first = build(seed=7).state_dict()
    torch.manual_seed(123)
    second, other = build(seed=7).state_dict(), build(seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("scaled", "factor"), [(True, 1 / math.sqrt(2 * 8)), (False, 1.0)])
def test_residual_projections_are_scaled_at_init(scaled: bool, factor: float) -> None:
    model = build(ModelConfig(n_layer=8, n_head=2, n_embd=64, scaled_residual_init=scaled))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            residual = "o_proj" in name or "down_proj" in name
            expected = 0.02 * (factor if residual else 1.0)
            assert parameter.std().item() == pytest.approx(expected, rel=0.1), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


def test_loss_is_near_uniform_at_init_and_ignores_masked_targets() -> None:
    model = build()
    tokens_BT = some_tokens()
    targets_BT = tokens_BT.roll(-1, dims=1)
    masked_BT = targets_BT.clone()
    masked_BT[:, ::2] = IGNORE_INDEX
    losses_BT = model.token_losses(tokens_BT, masked_BT)
    assert losses_BT.dtype == torch.float32
    assert torch.equal(losses_BT[:, ::2], torch.zeros_like(losses_BT[:, ::2]))
    kept = (masked_BT != IGNORE_INDEX).sum()
    torch.testing.assert_close(losses_BT.sum() / kept, model.loss(tokens_BT, masked_BT))
    assert model.loss(tokens_BT, targets_BT).item() == pytest.approx(math.log(VOCAB), rel=0.05)


def test_loss_stays_float32_under_autocast() -> None:
    model = build()
    tokens_BT = some_tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model.loss(tokens_BT, tokens_BT)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(model.loss(tokens_BT, tokens_BT).item(), rel=0.02)


def test_dropout_acts_in_training_only() -> None:
    model = build(SMALL.model_copy(update={"dropout": 0.5}))
    tokens_BT = some_tokens()
    assert torch.equal(model(tokens_BT), build()(tokens_BT))
    model.train()
    assert not torch.allclose(model(tokens_BT), model(tokens_BT), atol=1e-4)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_flops_count_matrices_that_multiply(tie_embeddings: bool) -> None:
    model = build(SMALL.model_copy(update={"tie_embeddings": tie_embeddings}))
    attention = 32 * 32 + 2 * 32 * 16 + 32 * 32
    body = 2 * (attention + 3 * 32 * SMALL.hidden)
    assert model.flops_per_token() == 6 * (body + VOCAB * 32) + 12 * 2 * 4 * 8 * 32
    norms = 2 * (2 * 32 + 2 * 8) + 32
    assert model.num_parameters() == body + norms + VOCAB * 32 * (1 if tie_embeddings else 2)


def test_too_many_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="33 tokens do not fit the context of 32"):
        build()(some_tokens(1, 33))


def test_a_model_built_without_memory_loads_weights() -> None:
    with torch.device("meta"):
        model = GPT(SMALL, VOCAB)
    model.load_state_dict(build().state_dict(), assign=True)
    assert torch.equal(model.eval()(some_tokens()), build()(some_tokens()))


def test_training_step_traces_to_one_graph() -> None:
    model = build().train()
    compiled = torch.compile(model.loss, fullgraph=True, dynamic=False, backend="aot_eager")
    tokens_BT = some_tokens(2, 16)
    loss = compiled(tokens_BT, tokens_BT)
    torch.autograd.backward(loss)
    torch.testing.assert_close(loss, model.loss(tokens_BT, tokens_BT))
    assert all(parameter.grad is not None for parameter in model.parameters())
