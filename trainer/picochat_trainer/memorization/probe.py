"""Measures what a base checkpoint keeps by heart: planted canaries, and spans of its training text.

How many candidates and spans there are follows from the size of the model and the kind of device, never from a clock:
equal runs give equal reports.
"""

import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from picochat_contract import layout

from picochat_trainer.inference.engine import Engine
from picochat_trainer.memorization.canaries import CanaryPlan
from picochat_trainer.memorization.exposure import (
    CanaryResult,
    chance_bits,
    exposure_summary,
    probe_canaries,
)
from picochat_trainer.memorization.extraction import (
    DISCOVERY_PROBABILITY,
    DISCOVERY_SAMPLES,
    Extraction,
    extract,
    extracted_rows,
    extraction_summary,
)
from picochat_trainer.memorization.spans import MIN_SPANS, STRATA, SpanSample, SpanSamples, sample_spans
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.training.pretraining_data import PretrainingData

MIN_CANDIDATES: Final = 256
MAX_CANDIDATES: Final = 1_024
MAX_SPANS: Final = 500
"""Of each stratum, where it has so many."""
MAX_LISTED: Final = 200
"""Canaries in train_report.json; memorization_report.json has all."""
MAX_EXAMPLES: Final = 20
"""Extracted spans that the report shows."""
_FLOPS: Final = {"cpu": 1e11, "cuda": 2e13}
"""For each of the two probes: a second or two, as long as the smallest samples take no more."""
_MIN_FLOPS_PER_TOKEN: Final = 5e5  # small models wait for memory
_CANDIDATE_TOKENS: Final = 12  # of a secret in digits
_SPAN_TOKENS: Final = 100


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How large the samples are."""

    num_candidates: int
    """A power of two, so that the most that exposure can tell is a whole number of bits."""
    num_spans: int


@dataclass(frozen=True, kw_only=True)
class Memorization:
    """What was measured."""

    canaries: list[CanaryResult]
    num_candidates: int
    report: dict[str, Any]
    """Content of memorization_report.json."""

    @property
    def evidence(self) -> dict[str, Any]:
        """The part of BaseEvidence that a gate reads."""
        exposure, extraction = self.report["exposure"], self.report["extraction"]
        once = [result for result in self.canaries if result.repeats == 1]
        by_repeats = {entry["repeats"]: entry for entry in exposure["by_repeats"]} if exposure else {}
        return {
            "canary_count": len(once),
            "canary_hits": sum(result.hit for result in once),
            "exposure_bits": by_repeats[1]["median_bits"] if 1 in by_repeats else None,
            "control_exposure_bits": exposure["controls"]["median_bits"] if exposure else None,
            "extractable": extraction["strata"][0]["extractable"],
            "extractable_heldout": extraction["heldout"]["extractable"],
        }

    @property
    def summary(self) -> dict[str, Any]:
        """`memorization` of train_report.json: the report with fewer single results."""
        extraction = {name: value for name, value in self.report["extraction"].items() if name != "examples"}
        return {
            "report": layout.MEMORIZATION_REPORT,
            "exposure": self.report["exposure"],
            "canaries": self.report["canaries"][:MAX_LISTED],
            "extraction": extraction,
        }


def measure_memorization(
    engine: Engine, tokenizer: Tokenizer, data: PretrainingData, plan: CanaryPlan, *, subject: str
) -> Memorization:
    """Probe `engine` for what `plan` planted and for spans of both sides of `data`."""
    seed = data.config.seed
    effort = effort_for(engine.model, num_canaries=len(plan.canaries))
    began = time.monotonic()
    canaries = probe_canaries(
        engine, tokenizer, plan.canaries, num_candidates=effort.num_candidates, seed=seed
    )
    asked = time.monotonic()
    spans = sample_spans(
        data.split,
        sequence_len=engine.context,
        vocab_size=data.store.vocab_size,
        num_spans=effort.num_spans,
        seed=seed,
    )
    counted = time.monotonic()
    extraction = _extraction(engine, tokenizer, data, spans)
    ended = time.monotonic()
    return Memorization(
        canaries=canaries,
        num_candidates=effort.num_candidates,
        report={
            "subject": subject,
            "exposure": _exposure(plan, canaries, effort.num_candidates, seed) if canaries else None,
            "canaries": [asdict(result) for result in canaries],
            "extraction": extraction,
            "seconds": {
                "canaries": asked - began,
                "counting_occurrences": counted - asked,
                "extraction": ended - counted,
            },
        },
    )


def effort_for(model: GPT, *, num_canaries: int) -> Effort:
    """Samples that this model answers in a second or two on its device, but never too few to judge."""
    flops = _FLOPS["cuda" if model.model.embed_tokens.weight.is_cuda else "cpu"]
    num_tokens = flops / max(model.flops_per_token() / 3, _MIN_FLOPS_PER_TOKEN)  # forward only
    candidates = num_tokens / (_CANDIDATE_TOKENS * max(num_canaries, 1))
    candidates = min(max(candidates, MIN_CANDIDATES), MAX_CANDIDATES)
    spans = num_tokens / (_SPAN_TOKENS * (len(STRATA) + 1))
    return Effort(
        num_candidates=2 ** int(math.log2(candidates)), num_spans=int(min(max(spans, MIN_SPANS), MAX_SPANS))
    )


def _exposure(
    plan: CanaryPlan, results: list[CanaryResult], num_candidates: int, seed: int
) -> dict[str, Any]:
    def of(repeats: int) -> dict[str, Any]:
        found = [result for result in results if result.repeats == repeats]
        return {"repeats": repeats, **exposure_summary(found, num_candidates, seed)}

    return {
        "left_out": list(plan.left_out),
        "note": plan.note,
        "num_tokens": plan.num_tokens,
        "share_of_training_tokens": plan.num_tokens / max(plan.train_tokens, 1),
        "num_candidates": num_candidates,
        "limit_bits": math.log2(num_candidates),
        "chance_mean_bits": chance_bits(num_candidates),
        "by_repeats": [of(repeats) for repeats in plan.repeats],
        "controls": of(0),
    }


def _extraction(
    engine: Engine, tokenizer: Tokenizer, data: PretrainingData, spans: SpanSamples
) -> dict[str, Any]:
    found = {
        sample.name: extract(engine, sample.tokens, spans.prefix) for sample in (*spans.strata, spans.heldout)
    }
    return {
        "span_tokens": spans.length,
        "prefix_tokens": spans.prefix,
        "counted_tokens": spans.num_counted,
        "train_tokens": spans.num_train,
        "sampled_fraction": spans.sampled_fraction,
        "discovery": {"samples": DISCOVERY_SAMPLES, "probability": DISCOVERY_PROBABILITY},
        "strata": [extraction_summary(sample, found[sample.name]) for sample in spans.strata],
        "heldout": extraction_summary(spans.heldout, found[spans.heldout.name]),
        "examples": _examples(tokenizer, data, spans, found),
    }


def _examples(
    tokenizer: Tokenizer, data: PretrainingData, spans: SpanSamples, found: dict[str, Extraction]
) -> list[dict[str, Any]]:
    """Training spans that came back, the rarest first: those that nothing but memory explains."""
    rows: list[tuple[SpanSample, int]] = []
    for sample in spans.strata:
        rows += [(sample, row) for row in extracted_rows(sample, found[sample.name])]
    rows = rows[:MAX_EXAMPLES]
    documents = [data.train_documents[int(sample.documents[row])] for sample, row in rows]
    return [
        {
            "document_id": document_id,
            "occurrences": int(sample.counts[row]),
            "prefix": tokenizer.decode(sample.tokens[row, : spans.prefix].tolist()),
            "text": tokenizer.decode(sample.tokens[row, spans.prefix :].tolist()),
        }
        for (sample, row), document_id in zip(rows, data.store.document_ids(documents), strict=True)
    ]
