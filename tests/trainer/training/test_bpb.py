import math
from typing import Any

import numpy as np
import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.training import bpb
from picochat_trainer.training.bpb import BpbValidator
from picochat_trainer.training.tokens import ArrayTokens

VOCAB, T = 11, 8
TOKEN_BYTES = [0, 1, 1, 2, 3, 1, 1, 4, 1, 1, 1]  # id 0 is BOS
TOKENS = np.random.default_rng(1).integers(1, VOCAB, 45).astype(np.uint16)
TOKENS[[0, 20]] = 0


@pytest.fixture
def model() -> GPT:
    made = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=T), VOCAB)
    made.init_weights(1)
    return made.eval()


def validator(**changes: Any) -> BpbValidator:
    return BpbValidator(ArrayTokens(TOKENS), TOKEN_BYTES, **{"sequence_len": T, "batch_rows": 2, **changes})


def one_by_one(model: GPT) -> tuple[float, int]:
    """Nats and bytes of every token with its window's tokens before it, the slow and plain way."""
    nats, num_bytes = 0.0, 0
    for start in range(0, len(TOKENS) - 1, T):
        window = torch.from_numpy(TOKENS[start : start + T + 1].astype(np.int64))
        with torch.no_grad():
            log_probs = model(window[None, :-1]).double().log_softmax(-1)[0]
        for position, target in enumerate(window[1:].tolist()):
            if TOKEN_BYTES[target]:
                nats -= float(log_probs[position, target])
                num_bytes += TOKEN_BYTES[target]
    return nats, num_bytes


def test_bits_per_byte_are_exact(model: GPT) -> None:
    nats, num_bytes = one_by_one(model)
    found = validator()(model)
    assert found.bpb == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-6)
    assert found.loss == pytest.approx(nats / validator().num_targets, rel=1e-6)


def test_every_token_but_the_special_ones_is_scored_once() -> None:
    # 45 tokens; the first has nothing before it, and it and one other are BOS.
    assert validator().num_targets == 43


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_the_batch_size_changes_nothing(model: GPT, batch_rows: int) -> None:
    assert validator(batch_rows=batch_rows)(model).bpb == pytest.approx(validator()(model).bpb, rel=1e-6)


def test_ranks_take_all_windows_between_them() -> None:
    shares = [validator(rank=rank, world_size=2)._starts[rank::2] for rank in (0, 1)]
    assert sorted(np.concatenate(shares)) == list(validator()._starts)


def test_the_unigram_baseline_is_add_one_smoothed_frequency() -> None:
    train = np.asarray([0, 1, 1, 2, 5], dtype=np.uint16)
    counts = {1: 2, 2: 1, 5: 1}
    nats = num_bytes = 0.0
    for target in TOKENS[1:].tolist():
        if TOKEN_BYTES[target]:
            nats -= math.log((counts.get(target, 0) + 1) / (4 + 10))
            num_bytes += TOKEN_BYTES[target]
    assert validator().unigram_bpb(ArrayTokens(train)) == pytest.approx(nats / math.log(2) / num_bytes)


def test_long_validation_text_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpb, "MAX_VAL_TOKENS", 3 * T)
    starts = validator()._starts
    assert list(starts) == [0, 16, 40]
