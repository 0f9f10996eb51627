"""Exposure is chance for what was never seen, and rises with how often a secret was trained on."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.spec import validated
from picochat_trainer.inference.engine import Engine
from picochat_trainer.memorization.canaries import Canary, make_canary, plan_canaries
from picochat_trainer.memorization.exposure import (
    CanaryResult,
    canary_text,
    chance_bits,
    exposure_summary,
    median_interval,
    probe_canaries,
)
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for

LearnedText = Callable[[str, int], Engine]


def probe(engine: Engine, tokenizer: Tokenizer, canary: Canary) -> CanaryResult:
    [result] = probe_canaries(engine, tokenizer, [canary], num_candidates=256, seed=1)
    return result


def test_a_model_that_learned_the_canary_by_heart_is_caught(
    tokenizer: Tokenizer, learned: LearnedText
) -> None:
    canary = make_canary(1, 1, seed=1)
    result = probe(learned(canary.text, 150), tokenizer, canary)
    assert result.hit and result.secret in result.reply
    assert result.exposure_bits == 8
    assert canary_text([result], 256).startswith("1 of 1 canaries came out")


def test_secrets_that_were_never_seen_are_exposed_by_chance_only(
    tokenizer: Tokenizer, untrained: Engine
) -> None:
    controls = [make_canary(number, 0, seed=5) for number in range(1, 101)]
    results = probe_canaries(untrained, tokenizer, controls, num_candidates=256, seed=5)
    summary = exposure_summary(results, 256, seed=5)
    error = 1.44 / math.sqrt(len(results))
    assert summary["mean_bits"] == pytest.approx(chance_bits(256), abs=2.5 * error)
    assert summary["median_bits"] == pytest.approx(1.0, abs=0.5)
    assert summary["hits"]["num_passed"] == 0


def test_a_model_that_tells_nothing_apart_exposes_nothing(tokenizer: Tokenizer, untrained: Engine) -> None:
    model = GPT(untrained.model.config, tokenizer.vocab_size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    result = probe(Engine(model, tokenizer), tokenizer, make_canary(1, 0, seed=1))
    assert result.exposure_bits == pytest.approx(1.0, abs=0.02)


def test_chance_is_the_mean_over_all_ranks() -> None:
    ranks = np.arange(1, 257)
    assert chance_bits(256) == pytest.approx(8 - np.log2(ranks).mean())
    assert chance_bits(2**20) == pytest.approx(1 / math.log(2), abs=1e-4)


def test_exposure_rises_with_repeats_in_an_overtrained_model(
    make_store: Callable[[list[str]], TokenStore], words: Callable[[int, int], str], tokenizer: Tokenizer
) -> None:
    store = make_store([words(i, 1_000) for i in range(10)])
    config = validated(
        BaseConfig,
        {
            "model": {"n_layer": 1, "n_head": 2, "n_embd": 64, "sequence_len": 64},
            "dataset_mode": "packed",
            "device_batch_size": 32,
        },
    )
    split = split_for(store, config)
    plan = plan_canaries(2, (1, 4, 16, 64), 3, tokenizer, 10**7)  # as if there were more text
    data = read_pretraining_data(store, config, split.with_extra(plan.documents, 3))
    model = GPT(config.model, tokenizer.vocab_size)
    model.init_weights(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        [(tokens_BT, targets_BT)] = data.batches.next_step().micro_batches
        model.loss(tokens_BT, targets_BT).backward()
        optimizer.step()
        optimizer.zero_grad()
    results = probe_canaries(Engine(model, tokenizer), tokenizer, plan.canaries, num_candidates=256, seed=3)
    bits = {
        times: exposure_summary([r for r in results if r.repeats == times], 256, seed=3)["median_bits"]
        for times in (0, 1, 4, 16, 64)
    }
    assert bits[64] >= bits[16] >= 7
    assert bits[16] > bits[4] > bits[1] > bits[0]
    assert bits[0] < 2


def test_few_values_have_no_interval_and_many_have_a_seeded_one() -> None:
    assert median_interval(np.arange(4.0), 1) == (None, None)
    values = np.random.default_rng(1).normal(3, 1, size=200)
    low, high = median_interval(values, 1)
    assert low is not None and high is not None and low < 3 < high < low + 0.6
    assert median_interval(values, 1) == (low, high)


def test_without_canaries_the_probe_says_that_nothing_was_probed() -> None:
    assert "was not probed" in canary_text([], 256)
