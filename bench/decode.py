"""Decode speed of the inference engine beside a plain loop without a cache, in the same run.

    python bench/decode.py [--threads 2]

The model has the shape of the `demo` scale and random weights; prompts are 32 random tokens, answers 200. Prints one table;
does not measure HTTP, GPUs or other servers.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import torch
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.spec import parse_mapping
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer

PROMPT_TOKENS, NEW_TOKENS = 32, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    spec = parse_mapping({"scale": "demo"})
    tokenizer = _tokenizer(spec.tokenizer)
    model = GPT(spec.base.model, tokenizer.vocab_size)
    model.init_weights(seed=1)
    engine = Engine(model, tokenizer)
    params = SamplingParams(max_new_tokens=NEW_TOKENS, temperature=0.0)
    print(f"{'rows':>4}  {'cached tok/s':>12}  {'plain tok/s':>12}  {'ratio':>6}")
    for rows in (1, 16):
        prompts = torch.randint(10, tokenizer.vocab_size, (rows, PROMPT_TOKENS)).tolist()
        cached = _speed(lambda p=prompts: engine.generate(p, params), rows, repeats=5)
        plain = _speed(lambda p=prompts: _plain(model, p), rows, repeats=3)
        print(f"{rows:>4}  {cached:>12,.0f}  {plain:>12,.0f}  {cached / plain:>6.1f}")


def _tokenizer(config: TokenizerConfig) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        save_tokenizer(
            train_tokenizer(config, topics.values()), path, path.with_name("tokenizer_config.json")
        )
        return Tokenizer.load(path)


@torch.no_grad()
def _plain(model: GPT, prompts: list[list[int]]) -> None:
    """Greedy decoding that runs the whole text through the model for every token."""
    tokens = torch.tensor(prompts)
    for _ in range(NEW_TOKENS):
        following = model(tokens)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, following], 1)


def _speed(work: Callable[[], object], rows: int, repeats: int) -> float:
    """Median tokens per second over `repeats` runs, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return rows * NEW_TOKENS / statistics.median(seconds)


if __name__ == "__main__":
    main()
