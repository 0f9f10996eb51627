"""Estimated memory against what layers really keep for the backward pass, and against the peak of real training steps."""

from typing import Any

import pytest
import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.preflight_footprint import BYTES_PER_LOGIT, disk_bytes, training_memory
from picochat_trainer.model import GPT, gpt
from picochat_trainer.model.attention import fused_attention, matmul_attention
from picochat_trainer.training.optim import make_optimizer
from support.live_tensors import LiveTensors

ROWS, VOCAB = 4, 512
GPT2: dict[str, Any] = {
    "norm_type": "layernorm",
    "position_encoding": "learned",
    "activation": "gelu",
    "qk_norm": False,
}
SHAPES = [
    ModelConfig(n_layer=4, n_head=4, n_embd=128, sequence_len=128),
    ModelConfig(n_layer=3, n_head=4, n_kv_head=1, n_embd=256, sequence_len=128),
    ModelConfig(n_layer=6, n_head=2, n_embd=128, sequence_len=256, mlp_hidden=512, parallel_residual=True),
    ModelConfig(n_layer=5, n_head=4, n_embd=128, sequence_len=128, activation="relu2"),
    ModelConfig(n_layer=7, n_head=4, n_embd=128, sequence_len=128, **GPT2),
]
STEPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"gradient_checkpointing": True},
    "chunks": {"loss_chunk_tokens": 64},
    "both": {"gradient_checkpointing": True, "loss_chunk_tokens": 64},
    "muon": {"optimizer": "muon"},
}


@pytest.mark.parametrize(
    "shape", SHAPES, ids=lambda shape: f"{shape.n_layer}x{shape.n_embd}-{shape.activation}"
)
@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_estimate_is_near_what_is_kept(
    shape: ModelConfig, bf16: bool, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The CPU's plain attention stands for itself, the fused one for the GPU.
    monkeypatch.setattr(gpt, "attend", fused_attention if on_gpu else matmul_attention)
    base = BaseConfig(model=shape, device_batch_size=ROWS)
    estimate = training_memory(base, VOCAB, on_gpu=on_gpu, bf16=bf16)
    # At rest only the softmax of the logits is kept, 4 of the 12 bytes; the weights' bf16 copies are counted there.
    weights = estimate.parameters - estimate.gradients
    expected = estimate.activations + estimate.logits * 4 / BYTES_PER_LOGIT + weights
    assert kept_bytes(shape, bf16=bf16) == pytest.approx(expected, rel=0.15)


def test_a_running_mean_holds_the_weights_once_more() -> None:
    plain, mean = (
        training_memory(BaseConfig(ema_decay=decay), VOCAB, on_gpu=True, bf16=False) for decay in (0.0, 0.99)
    )
    assert mean.total - plain.total == mean.ema == plain.parameters


def test_with_fsdp_a_rank_has_its_share_and_whole_what_it_is_at_work_on() -> None:
    base = BaseConfig(model=ModelConfig(n_layer=20), loss_spike_rollback=True, ema_decay=0.9)
    whole = training_memory(base, VOCAB, on_gpu=True, bf16=True)
    share = training_memory(base, VOCAB, on_gpu=True, bf16=True, num_ranks=4, strategy="fsdp")
    for name in ("optimizer", "ema", "snapshot"):
        assert getattr(share, name) == getattr(whole, name) // 4 > 0
    assert whole.parameters / 4 < share.parameters < whole.parameters / 2
    assert (share.activations, share.logits) == (whole.activations, whole.logits)
    alone = training_memory(base, VOCAB, on_gpu=True, bf16=True, num_ranks=4, strategy="ddp")
    assert alone == whole


def test_with_fsdp_gradients_are_whole_between_the_micro_batches_of_a_step() -> None:
    one, two = (
        training_memory(
            BaseConfig(model=ModelConfig(n_layer=20), grad_accum_steps=accumulation),
            VOCAB,
            on_gpu=True,
            bf16=True,
            num_ranks=4,
            strategy="fsdp",
        )
        for accumulation in (1, 2)
    )
    count = training_memory(
        BaseConfig(model=ModelConfig(n_layer=20)), VOCAB, on_gpu=True, bf16=True
    ).gradients
    assert count // 4 < one.gradients < count // 2
    assert two.gradients == count // 4 + count


def test_rollback_holds_weights_and_optimizer_a_second_time() -> None:
    plain, guarded = BaseConfig(), BaseConfig(loss_spike_rollback=True)
    parameters = training_memory(plain, VOCAB, on_gpu=False, bf16=False).parameters
    memory = [training_memory(base, VOCAB, on_gpu=False, bf16=False).total for base in (plain, guarded)]
    disk = [disk_bytes(base, VOCAB, corpus_tokens=0) for base in (plain, guarded)]
    assert memory[1] - memory[0] == 3 * parameters
    assert disk[1] - disk[0] == 2 * 3 * parameters  # two resume checkpoints


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("bf16", [True, False])
def test_the_estimate_is_near_the_peak_of_a_training_step(options: dict[str, Any], bf16: bool) -> None:
    shape = ModelConfig(n_layer=4, n_head=4, n_embd=128, sequence_len=128)
    base = BaseConfig(model=shape, device_batch_size=ROWS, learning_rate=1e-3, **options)
    estimate = training_memory(base, 2_048, on_gpu=False, bf16=bf16).total
    assert 0.8 <= peak_bytes(base, 2_048, bf16=bf16) / estimate <= 1.05


def peak_bytes(base: BaseConfig, vocab: int, *, bf16: bool) -> int:
    """Most bytes of tensors that are alive at once in two training steps."""
    model = GPT(base.model, vocab)
    model.init_weights(1)
    model.gradient_checkpointing = base.gradient_checkpointing
    model.loss_chunk_tokens = base.loss_chunk_tokens
    optimizer = make_optimizer(model, base, num_ranks=1)
    tokens = torch.randint(0, vocab, (ROWS, base.model.sequence_len))
    with LiveTensors(list(model.parameters())) as live:
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = model.loss(tokens, tokens)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return live.peak


def kept_bytes(shape: ModelConfig, *, bf16: bool) -> int:
    """Bytes of all tensors that the backward pass of one micro-batch needs, without the float32 weights."""
    model = GPT(shape, VOCAB)
    model.init_weights(1)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that its address stays its own
        return tensor

    tokens = torch.randint(0, VOCAB, (ROWS, shape.sequence_len))
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16),
    ):
        loss = model.loss(tokens, tokens)
    loss.backward()
    return sum(storage.nbytes() for storage in kept.values())
