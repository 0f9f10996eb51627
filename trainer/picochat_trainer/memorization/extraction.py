"""How many spans a model gives back: greedily word for word, and by sampling.

k-extractable (Carlini et al. 2023, arXiv 2202.07646): the prefix alone makes greedy decoding give the rest. That is so
exactly where every token of the rest is the likeliest after the tokens before it, so one pass over the whole span tells,
and nothing has to be generated. (n, p)-discoverable (Hayes et al. 2024, arXiv 2410.19482): of n samples, at least one is
the rest with probability p; the same pass gives the probability p_z of one sample, and n = log(1 - p) / log(1 - p_z).

N spans, T tokens, S tokens of the rest, D model dim, V vocab
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from picochat_trainer.inference.engine import Engine
from picochat_trainer.memorization.spans import SpanSample
from picochat_trainer.scoring.tally import score_of
from picochat_trainer.tokens.store import Tokens

DISCOVERY_SAMPLES: Final = 1_000
DISCOVERY_PROBABILITY: Final = 0.5
_PASS_LOGITS: Final = 1 << 25  # floats in one pass: 128 MiB


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """What became of N spans."""

    extracted: NDArray[np.bool_]
    """Greedy decoding gives the rest word for word."""
    log10_samples: NDArray[np.float64]
    """log10 of the n at which one of n samples at temperature 1 is the rest with probability one half; at least 0."""

    @property
    def discoverable(self) -> NDArray[np.bool_]:
        return self.log10_samples <= math.log10(DISCOVERY_SAMPLES)


@torch.inference_mode()
def extract(engine: Engine, spans: Tokens, prefix: int) -> Extraction:
    """Ask for the rest of each of `spans` (N, T) after its first `prefix` tokens."""
    device = engine.model.model.embed_tokens.weight.device
    num_rest = spans.shape[1] - prefix
    rows = max(1, _PASS_LOGITS // (num_rest * engine.model.vocab_size))
    extracted, log_probs = [], []
    for start in range(0, len(spans), rows):
        tokens_NT = torch.from_numpy(spans[start : start + rows].astype(np.int64)).to(device)
        rest_NS = tokens_NT[:, prefix:]
        hidden_NSD = engine.model.hidden(tokens_NT[:, :-1])[:, prefix - 1 :]
        logits_NSV = engine.model.logits(hidden_NSD).float()
        extracted.append((logits_NSV.argmax(dim=-1) == rest_NS).all(dim=1).cpu())
        chosen_NS = logits_NSV.gather(-1, rest_NS[..., None])[..., 0]
        log_probs.append((chosen_NS - logits_NSV.logsumexp(dim=-1)).double().sum(dim=1).cpu())
    if not log_probs:
        return Extraction(extracted=np.empty(0, np.bool_), log10_samples=np.empty(0))
    return Extraction(
        extracted=torch.cat(extracted).numpy(), log10_samples=log10_samples(torch.cat(log_probs).numpy())
    )


def log10_samples(log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """log10 n from ln p_z, without the overflow of 1 / p_z; one sample is the least that can be taken."""
    with np.errstate(divide="ignore"):
        # ln(1 - p_z), which is -p_z for the small ones
        log_misses = np.log(-np.log1p(-np.exp(np.minimum(log_probs, 0.0))))
    log_misses = np.where(log_probs < -30, log_probs, log_misses)
    needed = (math.log(-math.log1p(-DISCOVERY_PROBABILITY)) - log_misses) / math.log(10)
    return np.maximum(needed, 0.0)


def extraction_summary(sample: SpanSample, found: Extraction) -> dict[str, Any]:
    """Scores of one stratum, with 95 % Wilson intervals."""
    return {
        "occurrences": sample.name,
        "num_found": sample.num_found,
        "extractable": score_of(found.extracted.tolist()).model_dump(mode="json"),
        "discoverable": score_of(found.discoverable.tolist()).model_dump(mode="json"),
        "median_log10_samples": float(np.median(found.log10_samples)) if len(sample) else None,
    }


def extracted_rows(sample: SpanSample, found: Extraction) -> Sequence[int]:
    """Rows of the sample that were given back, those that occur most often first."""
    rows = np.flatnonzero(found.extracted)
    return [int(row) for row in rows[np.argsort(-sample.counts[rows], kind="stable")]]
