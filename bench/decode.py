"""Decode speed of the inference engine beside a plain loop without a cache, in the same run.

    python bench/decode.py [--threads 2] [--scale demo] [--rows 1 16] [--device auto] [--json FILE]

The model has the shape of the scale and random weights; prompts are 32 random tokens, answers 200. The engine keeps
at most 32 rows in a batch and lets further ones in as others end. Prints one table; does not measure HTTP or other servers.
"""

import argparse
import json
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

PROMPT_TOKENS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", default="demo")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--new-tokens", type=int, default=200)
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of the engine; the plain loop has 3 at most"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cuda = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
    device, new_tokens = "cuda" if cuda else "cpu", args.new_tokens
    spec = parse_mapping({"scale": args.scale})
    tokenizer = _tokenizer(spec.tokenizer)
    model = GPT(spec.base.model, tokenizer.vocab_size)
    model.init_weights(seed=1)
    if cuda:  # what Engine.load makes of a checkpoint there
        model.bfloat16()
    engine = Engine(model, tokenizer, device)
    params = SamplingParams(max_new_tokens=new_tokens, temperature=0.0)
    figures = []
    print(f"{'rows':>4}  {'cached tok/s':>12}  {'plain tok/s':>12}  {'ratio':>6}")
    for rows in args.rows:
        prompts = torch.randint(10, tokenizer.vocab_size, (rows, PROMPT_TOKENS)).tolist()
        cached = _speed(lambda p=prompts: engine.generate(p, params), rows * new_tokens, repeats=args.repeats)
        plain = _speed(
            lambda p=prompts: _plain(model, p, device, new_tokens),
            rows * new_tokens,
            repeats=min(3, args.repeats),
        )
        figures.append({"rows": rows, "cached": cached, "plain": plain})
        print(f"{rows:>4}  {cached:>12,.0f}  {plain:>12,.0f}  {cached / plain:>6.1f}", flush=True)
    if args.json:
        found = {"scale": args.scale, "device": device, "rows": figures}
        args.json.write_text(json.dumps(found), encoding="utf-8")


def _tokenizer(config: TokenizerConfig) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        save_tokenizer(
            train_tokenizer(config, topics.values()), path, path.with_name("tokenizer_config.json")
        )
        return Tokenizer.load(path)


@torch.no_grad()
def _plain(model: GPT, prompts: list[list[int]], device: str, new_tokens: int) -> list[list[int]]:
    """Greedy decoding that runs the whole text through the model for every token."""
    tokens = torch.tensor(prompts, device=device)
    for _ in range(new_tokens):
        following = model(tokens)[:, -1].argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, following], 1)
    found: list[list[int]] = tokens.tolist()  # which waits for the device
    return found


def _speed(work: Callable[[], object], num_tokens: int, repeats: int) -> float:
    """Median tokens per second over `repeats` runs, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return num_tokens / statistics.median(seconds)


if __name__ == "__main__":
    main()
