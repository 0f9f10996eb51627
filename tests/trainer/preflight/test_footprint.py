"""Estimated activation memory against what the model's layers really keep for the backward pass."""

import pytest
import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.preflight_footprint import BYTES_PER_LOGIT, disk_bytes, training_memory
from picochat_trainer.model import GPT, gpt
from picochat_trainer.model.attention import fused_attention, matmul_attention

ROWS, VOCAB = 4, 512
SHAPES = [
    ModelConfig(n_layer=4, n_head=4, n_embd=128, sequence_len=128),
    ModelConfig(n_layer=3, n_head=4, n_kv_head=1, n_embd=256, sequence_len=128),
    ModelConfig(n_layer=6, n_head=2, n_embd=128, sequence_len=256, mlp_hidden=512, parallel_residual=True),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.n_layer}x{shape.n_embd}")
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


def test_rollback_holds_weights_and_optimizer_a_second_time() -> None:
    plain, guarded = BaseConfig(), BaseConfig(loss_spike_rollback=True)
    parameters = training_memory(plain, VOCAB, on_gpu=False, bf16=False).parameters
    memory = [training_memory(base, VOCAB, on_gpu=False, bf16=False).total for base in (plain, guarded)]
    disk = [disk_bytes(base, VOCAB, corpus_tokens=0) for base in (plain, guarded)]
    assert memory[1] - memory[0] == 3 * parameters
    assert disk[1] - disk[0] == 2 * 3 * parameters  # two resume checkpoints


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
