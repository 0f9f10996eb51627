"""Reports with everything that the trainer writes into them and a page shows, made without a trainer."""

from collections.abc import Sequence
from typing import Any

from picochat_contract.stats import wilson_interval

MEASURES = {
    "exact": (1.0, "verbatim text", "the item's text stands in a document, character by character"),
    "normalised": (1.0, "NFKC and case folding", "the item's tokens stand in a document one after the other"),
    "ngram_any_13": (
        1.0,
        "GPT-3, arXiv 2005.14165, appendix C",
        "any 13 tokens in a row stand in a document",
    ),
    "palm70_8": (0.7, "PaLM, arXiv 2204.02311, section 8", "share of the item's 8-grams that stand anywhere"),
    "tulu50_8": (
        0.5,
        "Tulu 3, arXiv 2411.15124, section 3.2",
        "share of tokens inside 8-grams of one document",
    ),
    "longest_match_8": (0.5, "ConTAM, arXiv 2411.03923", "longest run of the item's tokens in a document"),
    "near": (
        0.75,
        "own: longest common subsequence in a window",
        "share of the item that aligns with a passage",
    ),
}


def corpus_manifest(shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Content of `corpus_manifest.json` without its list of documents."""
    return {
        "format": "picochat-corpus",
        "version": 2,
        "shards": list(shards),
        "sources": [
            {"type": "pydoc", "license": "PSF-2.0", "documents": 78, "characters": 464_292},
            {
                "type": "artifact",
                "name": "notes.jsonl",
                "digest": "a" * 64,
                "label": "notes",
                "documents": 12,
                "characters": 30_500,
                "limit_reached": True,
            },
        ],
        "stats": {
            "num_files": 3,
            "num_skipped_files": 1,
            "num_read": 97,
            "num_documents": 90,
            "num_removed": 7,
            "num_characters": 494_792,
            "num_bytes": 496_101,
            "largest_document_share": 0.134,
        },
        "licenses": {
            "PSF-2.0": {"documents": 78, "characters": 464_292},
            "": {"documents": 12, "characters": 30_500},
        },
        "labels": {
            "": {"documents": 78, "characters": 464_292},
            "notes": {"documents": 12, "characters": 30_500},
        },
        "readiness": {
            "status": "caution",
            "summary": "look at duplicate_lines",
            "checks": [
                readiness_check(
                    "usable_documents", "ready", 90, 2, "90 documents; one cannot be held out whole"
                ),
                readiness_check("duplicate_lines", "caution", 0.259, 0.15, "25.9% repeated lines"),
                readiness_check("near_duplicate", "caution", None, 0.05, "nobody looked for them"),
            ],
        },
        "dropped": [
            {
                "path": "pydoc/if",
                "reason": "exact_duplicate",
                "duplicate_of": "doc-000031",
                "similarity": None,
            },
            {
                "path": "notes/4",
                "reason": "near_duplicate",
                "duplicate_of": "doc-000080",
                "similarity": 0.913,
            },
        ],
        "dropped_counts": {"exact_duplicate": 1, "near_duplicate": 4, "too_short": 2},
    }


def readiness_check(
    name: str, status: str, measured: float | None, threshold: float, message: str
) -> dict[str, Any]:
    return {"name": name, "status": status, "measured": measured, "threshold": threshold, "message": message}


def measures() -> dict[str, Any]:
    return {
        name: {"threshold": threshold, "source": source, "description": description}
        for name, (threshold, source, description) in MEASURES.items()
    }


def pair(name: str, num_targets: int, risk: str = "clean", marked: int = 0) -> dict[str, Any]:
    """A row of the matrix whose `near` measure marks some items, all of them only with their answers."""
    reference, target = name.split("_vs_")
    none = {"prompt": 0, "prompt_answer": 0}
    return {
        "pair": name,
        "reference": reference,
        "target": target,
        "num_targets": num_targets,
        "num_places": 90,
        "num_not_searchable": 2,
        "risk": risk,
        "reason": f"there is nothing in {reference} to look in" if risk == "not_checked" else None,
        "num_contaminated": marked,
        "exact": 0,
        "normalised": 0,
        "near": marked,
        "max_coverage": 0.62 if marked else 0.0,
        "longest_match": 0.41 if marked else 0.0,
        "measures": dict.fromkeys(MEASURES, none) | {"near": {"prompt": 0, "prompt_answer": marked}},
    }


def finding(number: int, **changes: Any) -> dict[str, Any]:
    """The eval item at line `number`, found in an edited form in a document of the corpus."""
    text = f"Which of the {number} rivers that cross the northern plain is the longest one?"
    return {
        "kind": "eval_in_corpus",
        "pair": "corpus_vs_eval",
        "match": "near",
        "variant": "prompt",
        "measure": "near",
        "value": 0.81,
        "target": {"source": "eval", "id": f"eval:{number}", "path": None, "line": number, "span": [9, 40]},
        "target_text": text,
        "place": {
            "source": "corpus",
            "id": "doc-000012",
            "path": "notes/rivers",
            "line": None,
            "span": [4, 60],
        },
        "span_text": f"of the {number} rivers crossing the northern plain the longest is",
        "occurrences": 1,
        "message": f"eval:{number} stands in doc-000012 notes/rivers (near; near 0.81)",
        "fix": "remove notes/rivers from what trains, or replace the item that it gives away",
    } | changes


def comparison(num_eval: int, findings: Sequence[dict[str, Any]], omitted: int = 0) -> dict[str, Any]:
    """What honesty and audit reports share: a matrix with one risky pair, and the items that it marks."""
    lines = sorted({found["target"]["line"] for found in findings})
    return {
        "measures": measures(),
        "contamination_matrix": {
            "pairs": [
                pair("corpus_vs_sft", 400),
                pair("corpus_vs_eval", num_eval, "medium" if lines else "clean", len(lines)),
                pair("sft_vs_eval", num_eval, "low" if lines else "clean"),
                pair("corpus_vs_external", 60, "not_checked" if lines else "clean"),
            ]
        },
        "dirty_eval_lines": {name: lines if name == "near" else [] for name in MEASURES},
        "findings": list(findings),
        "findings_omitted": omitted,
    }


def clean_subsets(num_passed: int, num_examples: int, marked: int, marked_passed: int) -> dict[str, Any]:
    """Scores by measure where only `near` marks items."""
    full = num_passed / num_examples
    subsets = {name: subset(num_examples, num_passed, 0, 0, full) for name in MEASURES}
    return subsets | {
        "near": subset(num_examples - marked, num_passed - marked_passed, marked, marked_passed, full)
    }


def subset(
    num_clean: int, clean_passed: int, num_dirty: int, dirty_passed: int, full: float
) -> dict[str, Any]:
    clean = score(num_clean, clean_passed)
    return {
        "num_dirty": num_dirty,
        "clean": clean,
        "dirty": score(num_dirty, dirty_passed),
        "estimated_performance_gain": full - clean["pass_rate"],
    }


def score(num_examples: int, num_passed: int) -> dict[str, Any]:
    low, high = wilson_interval(num_passed, num_examples)
    rate = num_passed / num_examples if num_examples else 0.0
    return {
        "num_examples": num_examples,
        "num_passed": num_passed,
        "pass_rate": rate,
        "low": low,
        "high": high,
    }


def memorization() -> dict[str, Any]:
    """Content of `base/memorization_report.json`: what was repeated often is known by heart."""
    planted = [exposures(1, 1.6, 0), exposures(4, 2.4, 0), exposures(64, 8.0, 7)]
    strata = {"1": (200, 1), "2 to 9": (120, 4), "10 or more": (14, 6)}
    return {
        "subject": "b" * 64,
        "exposure": {
            "left_out": [256],
            "note": "no canary is repeated 256 times: all canaries would be more than 0.5% of the training tokens",
            "num_candidates": 256,
            "limit_bits": 8.0,
            "chance_mean_bits": 1.42,
            "share_of_training_tokens": 0.0041,
            "by_repeats": planted,
            "controls": exposures(0, 1.4, 0),
        },
        "extraction": {
            "span_tokens": 64,
            "prefix_tokens": 32,
            "discovery": {"samples": 1_000, "probability": 0.5},
            "strata": [stratum(name, *counts) for name, counts in strata.items()],
            "heldout": stratum("held out", 200, 1),
            "examples": [
                {
                    "document_id": "doc-000031",
                    "occurrences": 14,
                    "prefix": "The following sections describe the",
                    "text": " standard types that are built into the interpreter.",
                }
            ],
        },
    }


def exposures(repeats: int, median_bits: float, num_hits: int) -> dict[str, Any]:
    return {
        "repeats": repeats,
        "num": 8,
        "median_bits": median_bits,
        "low": median_bits / 2,
        "high": min(8.0, median_bits + 1),
        "mean_bits": median_bits,
        "num_at_limit": num_hits,
        "hits": score(8, num_hits),
    }


def stratum(name: str, num: int, num_extracted: int) -> dict[str, Any]:
    return {
        "occurrences": name,
        "num_found": num,
        "extractable": score(num, num_extracted),
        "discoverable": score(num, 2 * num_extracted),
        "median_log10_samples": 31.5,
    }
