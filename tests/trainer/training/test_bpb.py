import math
from typing import Any

import numpy as np
import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.training.bpb import BpbValidator
from picochat_trainer.training.tokens import ArrayTokens
from picochat_trainer.training.validation import ratio

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


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_ranks_take_all_windows_between_them_in_equally_many_batches(world_size: int) -> None:
    """A sharded model gathers its weights from all ranks in each pass."""
    batches = [
        list(ranked._windows(ranked._shares[rank]))
        for rank in range(world_size)
        for ranked in [validator(rank=rank, world_size=world_size)]
    ]
    assert {len(own) for own in batches} == {-(-6 // world_size // 2) or 1}
    scored = [int((batch.targets >= 0).sum()) for own in batches for batch in own]
    assert sum(scored) == validator().num_targets


def test_the_unigram_baseline_is_add_one_smoothed_frequency() -> None:
    train = np.asarray([0, 1, 1, 2, 5], dtype=np.uint16)
    counts = {1: 2, 2: 1, 5: 1}
    nats = num_bytes = 0.0
    for target in TOKENS[1:].tolist():
        if TOKEN_BYTES[target]:
            nats -= math.log((counts.get(target, 0) + 1) / (4 + 10))
            num_bytes += TOKEN_BYTES[target]
    assert validator().unigram_bpb(ArrayTokens(train)) == pytest.approx(nats / math.log(2) / num_bytes)


def test_long_validation_text_is_sampled_evenly() -> None:
    assert list(validator(max_tokens=3 * T)._starts) == [0, 16, 40]


def test_the_standard_error_is_over_windows_where_there_are_few_documents(model: GPT) -> None:
    nats, sizes = [], []
    for start in range(0, len(TOKENS) - 1, T):
        window = torch.from_numpy(TOKENS[start : start + T + 1].astype(np.int64))
        with torch.no_grad():
            log_probs = model(window[None, :-1]).double().log_softmax(-1)[0]
        scored = [t for t in range(len(window) - 1) if TOKEN_BYTES[window[t + 1]]]
        nats.append(-sum(float(log_probs[t, window[t + 1]]) for t in scored))
        sizes.append(sum(TOKEN_BYTES[window[t + 1]] for t in scored))
    found = validator(document_starts=np.array([0, 20]))
    assert found.clusters == "windows"
    residuals = np.array(nats) / math.log(2) - found(model).bpb * np.array(sizes)
    expected = math.sqrt(6 / 5 * np.sum(residuals**2)) / sum(sizes)
    assert found(model).bpb_stderr == pytest.approx(expected, rel=1e-5)


def test_the_standard_error_is_over_documents_where_there_are_enough(model: GPT) -> None:
    """Each document is one draw: one made of copies of itself tells no more than one copy does."""
    text = np.random.default_rng(2).integers(1, VOCAB, (40, 23)).astype(np.uint16)
    tokens = np.concatenate([np.array([0, *row], dtype=np.uint16) for row in text])
    starts = np.arange(40) * 24
    plain = BpbValidator(
        ArrayTokens(tokens), TOKEN_BYTES, sequence_len=8, batch_rows=7, document_starts=starts
    )
    assert plain.clusters == "documents"
    found = plain(model)
    tripled = np.concatenate([np.concatenate([tokens[s : s + 24]] * 3) for s in starts])
    again = BpbValidator(
        ArrayTokens(tripled), TOKEN_BYTES, sequence_len=8, batch_rows=7, document_starts=np.arange(40) * 72
    )
    repeated = again(model)
    assert repeated.bpb == pytest.approx(found.bpb, rel=2e-2)
    assert found.bpb_stderr is not None and repeated.bpb_stderr is not None
    assert repeated.bpb_stderr == pytest.approx(found.bpb_stderr, rel=0.1)  # not smaller by the root of 3


def test_documents_that_no_window_touches_are_not_counted() -> None:
    tokens = np.ones(1000, dtype=np.uint16)
    starts = np.arange(0, 1000, 10)
    sampled = BpbValidator(
        ArrayTokens(tokens), TOKEN_BYTES, sequence_len=8, batch_rows=4, document_starts=starts, max_tokens=24
    )
    assert sampled.clusters == "windows"


def test_a_ratio_of_equal_pairs_is_certain_and_one_pair_says_nothing() -> None:
    assert ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0])) == (2.0, 0.0)
    assert ratio(np.array([3.0, 0.0]), np.array([1.0, 0.0])) == (3.0, None)


def test_the_standard_error_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    """Clusters of unequal size with an effect of their own, drawn over and over: 95 % of 1.96 errors hold the truth."""
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(1000):
        sizes = rng.integers(5, 50, 60).astype(np.float64)
        totals = sizes * (2.0 + 0.5 * rng.standard_normal(60)) + np.sqrt(sizes) * rng.standard_normal(60)
        value, error = ratio(totals, sizes)
        assert error is not None
        inside += abs(value - 2.0) < 1.96 * error
    assert 915 <= inside <= 970
