"""What the memorization probe costs: counting how often spans occur, and asking a model of the demo's size.

    python bench/memorization.py [--megatokens 16] [--span 100] [--canaries 4]

Counting is set beside a Python dictionary of token tuples over the first part of the same tokens, which are random with
repeated passages. The model is untrained: what it answers takes as long. Seconds are of one core; prints one table.
"""

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.scales import SCALES
from picochat_contract.spec import validated
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.memorization.canaries import make_canary
from picochat_trainer.memorization.exposure import probe_canaries
from picochat_trainer.memorization.extraction import extract
from picochat_trainer.memorization.occurrences import WindowHashes, count_windows
from picochat_trainer.memorization.probe import effort_for
from picochat_trainer.memorization.samples import write_samples
from picochat_trainer.memorization.spans import STRATA
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import train_tokenizer
from picochat_trainer.training.tokens import ArrayTokens, Spans

VOCAB_SIZE = 2_048
DOCUMENT = 1_024
PLAIN_TOKENS = 1 << 18
MIN_CONTROLS = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megatokens", type=int, default=16)
    parser.add_argument("--span", type=int, default=100)
    parser.add_argument("--canaries", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [*_counting(args.megatokens << 20, args.span), *_asking(args.span, args.canaries)]
    for row in [("what", "seconds", "rate", "beside the baseline"), *rows]:
        print(f"{row[0]:44} {row[1]:>9} {row[2]:>16} {row[3]:>28}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory {peak:,.0f} MiB")


def _counting(num_tokens: int, length: int) -> list[tuple[str, str, str, str]]:
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, VOCAB_SIZE, size=num_tokens, dtype=np.uint16).reshape(-1, DOCUMENT)
    tokens[:: len(tokens) // 64] = tokens[0]  # one document in 64 copies
    text = ArrayTokens(tokens.reshape(-1))
    spans = Spans(
        addresses=np.arange(0, num_tokens, DOCUMENT), lengths=np.full(num_tokens // DOCUMENT, DOCUMENT)
    )
    hashing = WindowHashes(length, VOCAB_SIZE, 1)
    seconds, found = _timed(lambda: count_windows(text, spans, hashing))
    plain_seconds, _ = _timed(lambda: _plain(text.tokens[:PLAIN_TOKENS].tolist(), length))
    assert found.counts.max() >= 64
    rate, plain = num_tokens / seconds / 1e6, PLAIN_TOKENS / plain_seconds / 1e6
    return [
        (f"count windows, {num_tokens >> 20} M tokens", f"{seconds:.2f}", f"{rate:.1f} Mtok/s", f"{rate / plain:.0f}x"),
        ("baseline: dict of tuples", f"{plain_seconds:.2f}", f"{plain:.2f} Mtok/s", ""),
    ]  # fmt: skip


def _plain(tokens: list[int], length: int) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(tokens[start + i : start + i + length])
        for start in range(0, len(tokens), DOCUMENT)
        for i in range(DOCUMENT - length + 1)
    )


def _asking(length: int, num_canaries: int) -> list[tuple[str, str, str, str]]:
    tokenizer = Tokenizer(train_tokenizer(TokenizerConfig(type="byte"), []), digest="0" * 64)
    config = validated(BaseConfig, SCALES["demo"]["base"])
    model = GPT(config.model, VOCAB_SIZE)
    model.init_weights(1)
    engine = Engine(model, tokenizer)
    total = num_canaries + max(num_canaries, MIN_CONTROLS)
    effort = effort_for(model, num_canaries=total)
    canaries = [make_canary(number, 0, 1) for number in range(1, total + 1)]
    exposure, _ = _timed(
        lambda: probe_canaries(engine, tokenizer, canaries, num_candidates=effort.num_candidates, seed=1)
    )
    num_spans = effort.num_spans * (len(STRATA) + 1)
    spans = np.random.default_rng(1).integers(0, 256, size=(num_spans, length), dtype=np.uint16)
    extraction, _ = _timed(lambda: extract(engine, spans, length // 2))
    params = SamplingParams(max_new_tokens=length - length // 2, temperature=0.0)
    prompts = [span[: length // 2].tolist() for span in spans[:64]]
    greedy, _ = _timed(lambda: engine.generate(prompts, params))
    per_span, plain = extraction / num_spans, greedy / len(prompts)
    with tempfile.TemporaryDirectory() as folder:
        samples, num_tokens = _timed(lambda: write_samples(engine, Path(folder) / "samples.jsonl", 1))
    candidates = total * effort.num_candidates
    return [
        (f"exposure, {total} secrets x {effort.num_candidates} candidates", f"{exposure:.2f}",
         f"{candidates / exposure:,.0f}/s", ""),
        (f"extraction, {num_spans} spans in one pass", f"{extraction:.2f}", f"{1 / per_span:,.0f} spans/s",
         f"{plain / per_span:.1f}x"),
        ("baseline: 64 spans generated greedily", f"{greedy:.2f}", f"{1 / plain:,.0f} spans/s", ""),
        (f"samples, {num_tokens:,} tokens", f"{samples:.2f}", f"{num_tokens / samples:,.0f} tok/s", ""),
    ]  # fmt: skip


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


if __name__ == "__main__":
    main()
