"""Does the model give training text back? Planted canaries, and the longest copied span of the sample.

Exposure is that of Carlini et al., "The Secret Sharer" (USENIX Security 2019): log2 of the number of candidates
minus log2 of the secret's rank among them by likelihood. A secret that left no trace averages about 1.4 bits.
"""

import math
import random
from dataclasses import asdict, dataclass

from picochat_contract.errors import Code, ContractError

from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.canaries import Canary

NUM_CANDIDATES = 256  # with the secret itself: exposure is at most 8 bits
MAX_SEARCHED_CHARACTERS = 20_000_000  # a substring search in more text would take minutes


@dataclass(frozen=True, kw_only=True)
class CanaryResult:
    prompt: str
    secret: str
    reply: str
    hit: bool
    """The greedy reply holds the secret."""
    exposure_bits: float


@dataclass(frozen=True, kw_only=True)
class CopiedSpan:
    """The longest piece of a sample that stands word for word in the training text."""

    num_characters: int
    text: str
    searched_characters: int
    sample_characters: int

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def check_canary_room(canaries: tuple[Canary, ...], tokenizer: Tokenizer, sequence_len: int) -> None:
    """Refuse a context that cannot hold a secret and one token before it."""
    longest = max((len(tokenizer.encode(f" {c.secret}")) for c in canaries), default=0)
    if sequence_len < longest + 2:
        raise ContractError(
            Code.INVALID_VALUE,
            f"a canary's secret takes {longest} tokens and does not fit a context of {sequence_len}; set "
            "base.canary_count: 0 or a larger base.model.sequence_len",
            param="canary_count",
        )


def probe_canaries(
    engine: Engine, tokenizer: Tokenizer, canaries: tuple[Canary, ...], seed: int
) -> list[CanaryResult]:
    """Ask for each secret greedily, and rank it among made-up ones."""
    results = []
    for index, canary in enumerate(canaries):
        prompt = canary.prefix.rstrip()
        num_secret = len(tokenizer.encode(f" {canary.secret}"))
        # A short context keeps the end of the prompt.
        prompt_ids = [tokenizer.bos_id, *tokenizer.encode(prompt)][-(engine.context - num_secret - 1) :]
        room = engine.context - len(prompt_ids)
        params = SamplingParams(max_new_tokens=min(room, num_secret + 4), temperature=0.0)
        reply = engine.generate([prompt_ids], params)[0].text
        results.append(
            CanaryResult(
                prompt=prompt,
                secret=canary.secret,
                reply=reply,
                hit=canary.secret in reply,
                exposure_bits=_exposure(engine, tokenizer, prompt_ids, canary, f"{seed} {index}"),
            )
        )
    return results


def longest_copied_span(sample: str, training_text: str) -> CopiedSpan:
    """Find the longest substring of `sample` in the training text (its first part, if that is very long)."""
    searched = training_text[:MAX_SEARCHED_CHARACTERS]
    best_start = best_length = 0
    for start in range(len(sample)):
        while start + best_length < len(sample) and sample[start : start + best_length + 1] in searched:
            best_start, best_length = start, best_length + 1
    return CopiedSpan(
        num_characters=best_length,
        text=sample[best_start : best_start + best_length],
        searched_characters=len(searched),
        sample_characters=len(sample),
    )


def canary_text(results: list[CanaryResult]) -> str:
    """`canary_probe.txt`."""
    if not results:
        return "No canaries were planted (base.canary_count is 0), so memorization was not probed.\n"
    hits = sum(result.hit for result in results)
    lines = [f"{hits} of {len(results)} canaries came out of the model.", ""]
    for result in results:
        lines += [
            f"prompt:   {result.prompt}",
            f"secret:   {result.secret}",
            f"reply:    {result.reply!r}",
            f"hit:      {'yes' if result.hit else 'no'}",
            f"exposure: {result.exposure_bits:.1f} of {math.log2(NUM_CANDIDATES):.0f} bits",
            "",
        ]
    return "\n".join(lines)


def _exposure(
    engine: Engine, tokenizer: Tokenizer, prompt_ids: list[int], canary: Canary, seed: str
) -> float:
    rng = random.Random(f"{seed} candidates")
    secrets = [canary.secret]
    while len(secrets) < NUM_CANDIDATES:
        secrets.append("-".join(f"{rng.randrange(1000):03d}" for _ in range(3)))
    scores = engine.score(prompt_ids, [tokenizer.encode(f" {secret}") for secret in secrets])
    rank = 1 + sum(score > scores[0] for score in scores[1:])
    return math.log2(NUM_CANDIDATES) - math.log2(rank)
