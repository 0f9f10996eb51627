"""A forward pass through the cache equals one without it."""

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT, KVCache
from torch import Tensor

VOCAB = 50
CONFIG = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, sequence_len=24)


@pytest.fixture(params=["rope", "learned"])
def model(request: pytest.FixtureRequest) -> GPT:
    model = GPT(CONFIG.model_copy(update={"position_encoding": request.param}), VOCAB)
    model.init_weights(1)
    with torch.no_grad():  # so that positions weigh as much as tokens
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.ndim == 2 else 1)
    return model.eval()


def new_cache(slots: int) -> KVCache:
    return KVCache.empty(CONFIG, slots, device="cpu", dtype=torch.float32)


def some_tokens(rows: int, length: int) -> Tensor:
    return torch.randint(VOCAB, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_rows_of_different_lengths_decode_as_if_alone(model: GPT) -> None:
    tokens_BT = some_tokens(3, 12)
    counts = [5, 9, 2]
    cache = new_cache(3)
    model(tokens_BT[:, :9], cache)  # right-padded: what lies behind a row's count is noise
    cache.advance(counts)
    for step in range(3):
        column_B1 = torch.stack([tokens_BT[row, count + step] for row, count in enumerate(counts)])[:, None]
        logits_B1V = model(column_B1, cache)
        cache.advance(1)
        for row, count in enumerate(counts):
            alone_1TV = model(tokens_BT[row : row + 1, : count + step + 1])
            torch.testing.assert_close(logits_B1V[row, -1], alone_1TV[0, -1], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_a_view_of_rows_shares_storage_and_leaves_other_rows_alone(model: GPT) -> None:
    cache = new_cache(4)
    before = cache.keys_LBKSh[:, 0].clone()
    view = cache.rows(1, 3)
    model(some_tokens(2, 4), view)
    view.advance(4)
    assert cache.lengths_B.tolist() == [0, 4, 4, 0]
    assert cache.keys_LBKSh[:, 1:3, :, :4].abs().sum() > 0
    assert torch.equal(cache.keys_LBKSh[:, 0], before)


@torch.inference_mode()
def test_a_moved_row_decodes_as_before(model: GPT) -> None:
    tokens_BT = some_tokens(2, 6)
    cache = new_cache(3)
    view = cache.rows(0, 2)
    model(tokens_BT, view)
    view.advance(6)
    cache.move(1, 2)
    next_token = torch.tensor([[7]])
    moved = model(next_token, cache.rows(2, 3))
    assert torch.equal(moved, model(next_token, cache.rows(1, 2)))


def test_a_full_cache_is_refused(model: GPT) -> None:
    cache = new_cache(1)
    cache.advance(24)
    with pytest.raises(ValueError, match="the cache has 24 positions, this pass needs 25"):
        model(torch.tensor([[1]]), cache)
