"""How far a planted secret stands out: exposure, and whether asking for it brings it back.

Exposure is that of Carlini et al., "The Secret Sharer" (USENIX Security 2019): log2 of the number of candidates minus
log2 of the secret's rank among them by the model's loss. Candidates are drawn as secrets are, so that one that left no
trace takes every rank alike: 1.44 bits on average. Nothing is extrapolated: `limit_bits` is the most that can be told.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.memorization.canaries import Canary, secret_text
from picochat_trainer.scoring.tally import score_of
from picochat_trainer.tokenizer import Tokenizer

MIN_INTERVAL: Final = 5
"""Values under which a median gets no interval: even the range of four misses it one time in eight."""
_RESAMPLES: Final = 1_000
_EXTRA_REPLY: Final = 4  # tokens beyond the secret's, for a reply that begins with something else


@dataclass(frozen=True, kw_only=True)
class CanaryResult:
    prompt: str
    secret: str
    repeats: int
    reply: str
    hit: bool
    """The greedy reply holds the secret."""
    exposure_bits: float


def probe_canaries(
    engine: Engine, tokenizer: Tokenizer, canaries: Sequence[Canary], *, num_candidates: int, seed: int
) -> list[CanaryResult]:
    """Ask for each secret greedily, and rank it among `num_candidates` - 1 made-up ones."""
    prompts = [_prompt_ids(engine, tokenizer, canary) for canary in canaries]
    lengths = [_num_secret_tokens(tokenizer, canary) for canary in canaries]
    longest = max(lengths, default=0) + _EXTRA_REPLY
    replies = engine.generate(prompts, SamplingParams(max_new_tokens=longest, temperature=0.0))
    return [
        CanaryResult(
            prompt=canary.prefix.rstrip(),
            secret=canary.secret,
            repeats=canary.repeats,
            reply=reply.text,
            hit=canary.secret in reply.text,
            exposure_bits=_exposure(
                engine, tokenizer, prompt_ids, canary.secret, num_candidates, f"{seed} {index}"
            ),
        )
        for index, (canary, prompt_ids, reply) in enumerate(zip(canaries, prompts, replies, strict=True))
    ]


def chance_bits(num_candidates: int) -> float:
    """Mean exposure of a secret that left no trace: every rank is as likely as any other."""
    return math.log2(num_candidates) - math.lgamma(num_candidates + 1) / math.log(2) / num_candidates


def exposure_summary(results: Sequence[CanaryResult], num_candidates: int, seed: int) -> dict[str, Any]:
    """Number, median with interval, mean and hits of canaries that were inserted equally often."""
    bits = np.array([result.exposure_bits for result in results])
    low, high = median_interval(bits, seed)
    return {
        "num": len(results),
        "median_bits": float(np.median(bits)) if len(bits) else None,
        "low": low,
        "high": high,
        "mean_bits": float(np.mean(bits)) if len(bits) else None,
        "num_at_limit": int((bits == math.log2(num_candidates)).sum()),
        "hits": score_of(result.hit for result in results).model_dump(mode="json"),
    }


def median_interval(values: np.ndarray, seed: int) -> tuple[float | None, float | None]:
    """95 % interval of the median by the percentile bootstrap; None for fewer than `MIN_INTERVAL` values."""
    if len(values) < MIN_INTERVAL:
        return None, None
    rng = np.random.default_rng([seed, len(values)])
    medians = np.median(values[rng.integers(0, len(values), size=(_RESAMPLES, len(values)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def canary_text(results: Sequence[CanaryResult], num_candidates: int) -> str:
    """`canary_probe.txt`."""
    if not results:
        return "No canaries were planted (base.canary_count is 0), so memorization was not probed.\n"
    planted = [result for result in results if result.repeats]
    hits = sum(result.hit for result in planted)
    lines = [
        f"{hits} of {len(planted)} canaries came out of the model; of {len(results) - len(planted)} controls, which "
        f"were never inserted, {sum(result.hit for result in results) - hits}.",
        "",
    ]
    for result in results:
        lines += [
            f"prompt:   {result.prompt}",
            f"secret:   {result.secret}",
            f"inserted: {times_text(result.repeats)}",
            f"reply:    {result.reply!r}",
            f"hit:      {'yes' if result.hit else 'no'}",
            f"exposure: {result.exposure_bits:.1f} of {math.log2(num_candidates):.0f} bits",
            "",
        ]
    return "\n".join(lines)


def times_text(repeats: int) -> str:
    if repeats == 0:
        return "never (control)"
    return "once" if repeats == 1 else f"{repeats} times"


def _prompt_ids(engine: Engine, tokenizer: Tokenizer, canary: Canary) -> list[int]:
    """The prefix as the beginning of a document; a short context keeps its end."""
    prompt = [tokenizer.bos_id, *tokenizer.encode(canary.prefix.rstrip())]
    return prompt[-(engine.context - _num_secret_tokens(tokenizer, canary) - 1) :]


def _num_secret_tokens(tokenizer: Tokenizer, canary: Canary) -> int:
    return len(tokenizer.encode(f" {canary.secret}"))


def _exposure(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[int],
    secret: str,
    num_candidates: int,
    seed: str,
) -> float:
    rng = random.Random(f"{seed} candidates")
    candidates = {secret: None}
    while len(candidates) < num_candidates:
        candidates[secret_text(f"{rng.randrange(10**9):09d}")] = None
    scores = np.array(
        engine.score(prompt_ids, [tokenizer.encode(f" {candidate}") for candidate in candidates])
    )
    # Candidates as likely as the secret count half: a model that tells nothing apart exposes nothing.
    rank = 1 + int((scores[1:] > scores[0]).sum()) + int((scores[1:] == scores[0]).sum()) / 2
    return math.log2(num_candidates) - math.log2(rank)
