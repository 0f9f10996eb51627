import math
from pathlib import Path

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.inference.engine import Engine
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.canaries import Canary, make_canaries
from picochat_trainer.training.memorization import (
    NUM_CANDIDATES,
    CanaryResult,
    canary_text,
    check_canary_room,
    longest_copied_span,
    probe_canaries,
)


@pytest.fixture
def tokenizer(prepared_run: Path) -> Tokenizer:
    return Tokenizer.load(prepared_run / "tokenizer.json")


def engine_that_learned(text: str, tokenizer: Tokenizer, steps: int) -> Engine:
    """A small model after `steps` steps on one text."""
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=32, sequence_len=64), tokenizer.vocab_size)
    model.init_weights(1)
    ids_BT = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text)]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model.loss(ids_BT[:, :-1], ids_BT[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return Engine(model, tokenizer)


def probe(tokenizer: Tokenizer, steps: int) -> CanaryResult:
    canaries = make_canaries(1, seed=1)
    engine = engine_that_learned(canaries[0].text, tokenizer, steps)
    [result] = probe_canaries(engine, tokenizer, canaries, seed=1)
    return result


def test_a_model_that_learned_the_canary_by_heart_is_caught(tokenizer: Tokenizer) -> None:
    result = probe(tokenizer, steps=150)
    assert result.hit and result.secret in result.reply
    assert result.exposure_bits == math.log2(NUM_CANDIDATES)
    assert canary_text([result]).startswith("1 of 1 canaries came out")


def test_a_model_that_never_saw_it_does_not_know_it(tokenizer: Tokenizer) -> None:
    result = probe(tokenizer, steps=0)
    assert not result.hit
    assert result.exposure_bits < math.log2(NUM_CANDIDATES)


def test_a_context_without_room_for_the_secret_is_refused(tokenizer: Tokenizer) -> None:
    canaries = (Canary(prefix="The secret is ", secret="123-456-789"),)
    check_canary_room(canaries, tokenizer, 14)
    with pytest.raises(ContractError, match="canary_count: 0") as caught:
        check_canary_room(canaries, tokenizer, 13)
    assert caught.value.code == Code.INVALID_VALUE
    check_canary_room((), tokenizer, 8)


@pytest.mark.parametrize(
    ("sample", "text", "span"),
    [
        ("the cat sat", "a cat sat down", " cat sat"),
        ("abc", "xyz", ""),
        ("", "xyz", ""),
        ("aab", "ab aab", "aab"),
        ("same", "same", "same"),
    ],
)
def test_the_longest_copied_span_is_found(sample: str, text: str, span: str) -> None:
    found = longest_copied_span(sample, text)
    assert (found.text, found.num_characters) == (span, len(span))


def test_without_canaries_the_probe_says_that_nothing_was_probed() -> None:
    assert "was not probed" in canary_text([])
