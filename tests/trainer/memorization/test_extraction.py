"""One pass over a span says what greedy decoding and sampling would give."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.memorization import extraction
from picochat_trainer.memorization.extraction import extract, extraction_summary, log10_samples
from picochat_trainer.memorization.spans import SpanSample
from picochat_trainer.tokenizer import Tokenizer

LearnedText = Callable[[str, int], Engine]
SECRET = "the quick brown fox jumps over the lazy dog"


def spans_of(tokenizer: Tokenizer, *texts: str) -> np.ndarray:
    return np.array([tokenizer.encode(text) for text in texts], dtype=np.uint16)


def test_a_text_learned_by_heart_is_extracted_and_another_is_not(
    tokenizer: Tokenizer, learned: LearnedText
) -> None:
    engine = learned(SECRET, 120)
    spans = spans_of(tokenizer, SECRET, SECRET[:20] + SECRET[:19:-1])
    spans = np.insert(spans, 0, tokenizer.bos_id, axis=1)
    found = extract(engine, spans, 20)
    assert found.extracted.tolist() == [True, False]
    assert found.discoverable.tolist() == [True, False]
    assert found.log10_samples[0] < 1 < 10 < found.log10_samples[1]


def test_the_pass_agrees_with_greedy_decoding(
    tokenizer: Tokenizer, learned: LearnedText, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = learned(SECRET, 60)  # so that some continuations are right
    rng = np.random.default_rng(1)
    starts = rng.integers(0, len(SECRET) - 12, size=40)
    spans = spans_of(tokenizer, *(SECRET[start : start + 12] for start in starts))
    spans[::4, -1] += 1  # and some are wrong at the last token only
    prefix = 8
    replies = engine.generate(
        [span[:prefix].tolist() for span in spans], SamplingParams(max_new_tokens=4, temperature=0.0)
    )
    greedy = [
        list(reply.token_ids) == span[prefix:].tolist() for reply, span in zip(replies, spans, strict=True)
    ]
    assert 0 < sum(greedy) < len(greedy)
    monkeypatch.setattr(extraction, "_PASS_LOGITS", 4 * engine.model.vocab_size * 7)  # 7 spans a pass
    assert extract(engine, spans, prefix).extracted.tolist() == greedy


def test_the_probability_of_a_sample_is_that_of_the_engine(tokenizer: Tokenizer, untrained: Engine) -> None:
    span = spans_of(tokenizer, "abcdefgh")
    [log_prob] = untrained.score(span[0, :5].tolist(), [span[0, 5:].tolist()])
    [found] = extract(untrained, span, 5).log10_samples
    assert found == pytest.approx(log10_samples(np.array([log_prob]))[0], abs=1e-4)


@pytest.mark.parametrize("probability", [0.9, 0.5, 0.1, 1e-3, 1e-9])
def test_so_many_samples_find_it_with_probability_one_half(probability: float) -> None:
    [found] = 10 ** log10_samples(np.array([math.log(probability)]))
    missed = (1 - probability) ** found
    assert missed == pytest.approx(0.5, rel=1e-6) if probability < 0.5 else found == 1


def test_probabilities_too_small_for_a_float_still_give_a_number() -> None:
    found = log10_samples(np.array([-30.1, -29.9, -5_000.0, 0.0]))
    assert found[0] == pytest.approx(found[1], abs=0.1)
    assert found[2] == pytest.approx(5_000 / math.log(10), rel=1e-3)
    assert found[3] == 0


def test_an_empty_stratum_is_not_measured(tokenizer: Tokenizer, untrained: Engine) -> None:
    empty = np.empty(0, np.int64)
    sample = SpanSample(
        name="65+", tokens=np.empty((0, 16), np.uint16), counts=empty, documents=empty, num_found=0
    )
    summary = extraction_summary(sample, extract(untrained, sample.tokens, 8))
    assert summary["extractable"]["num_examples"] == 0 and summary["extractable"]["high"] == 1
    assert summary["median_log10_samples"] is None


def test_the_model_is_asked_without_gradients(tokenizer: Tokenizer, untrained: Engine) -> None:
    extract(untrained, spans_of(tokenizer, "abcdefgh"), 4)
    assert all(parameter.grad is None for parameter in untrained.model.parameters())
    assert torch.is_grad_enabled()
