"""The memorization section of base/report.md."""

from collections.abc import Mapping
from typing import Any

from picochat_trainer.memorization.exposure import times_text


def memorization_lines(report: Mapping[str, Any]) -> list[str]:
    return [*_exposure_lines(report["exposure"]), "", *_extraction_lines(report["extraction"])]


def _exposure_lines(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["No canaries were planted."]
    lines = [
        f"Exposure of planted secrets among {found['num_candidates']:,} candidates (at most {found['limit_bits']:.0f} "
        f"bits; {found['chance_mean_bits']:.2f} on average by chance). Canaries are "
        f"{found['share_of_training_tokens']:.2%} of the training tokens.",
        "",
        "| inserted | secrets | median bits | 95 % | mean bits | came out |",
        "|---|---:|---:|---:|---:|---:|",
        *(_exposure_row(times_text(entry["repeats"]), entry) for entry in found["by_repeats"]),
        _exposure_row(times_text(0), found["controls"]),
    ]
    return [*lines, "", f"Note: {found['note']}."] if found["note"] else lines


def _exposure_row(name: str, entry: Mapping[str, Any]) -> str:
    interval = "" if entry["low"] is None else f"{entry['low']:.1f} to {entry['high']:.1f}"
    return (
        f"| {name} | {entry['num']} | {entry['median_bits']:.1f} | {interval} | {entry['mean_bits']:.1f} | "
        f"{entry['hits']['num_passed']} |"
    )


def _extraction_lines(found: Mapping[str, Any]) -> list[str]:
    discovery = found["discovery"]
    rest = found["span_tokens"] - found["prefix_tokens"]
    counted = (
        "all training tokens"
        if found["counted_tokens"] >= found["train_tokens"]
        else f"{found['counted_tokens']:,} of {found['train_tokens']:,} training tokens"
    )
    return [
        f"Spans of {found['prefix_tokens']} + {rest} tokens, by how often they occur in {counted}. Extractable: greedy "
        f"decoding after the first part gives the second word for word. Discoverable: {discovery['samples']:,} samples "
        f"give it with probability {discovery['probability']}. Held-out spans occur nowhere in the training text: what "
        "ordinary prediction reaches.",
        "",
        "| occurrences | spans | extractable | 95 % | discoverable | 95 % | median log10 of samples needed |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *(_extraction_row(stratum) for stratum in (*found["strata"], found["heldout"])),
    ]


def _extraction_row(stratum: Mapping[str, Any]) -> str:
    cells = [stratum["occurrences"], str(stratum["extractable"]["num_examples"])]
    for name in ("extractable", "discoverable"):
        score = stratum[name]
        measured = score["num_examples"] > 0
        cells.append(f"{score['pass_rate']:.1%}" if measured else "")
        cells.append(f"{score['low']:.1%} to {score['high']:.1%}" if measured else "")
    median = stratum["median_log10_samples"]
    cells.append("" if median is None else f"{median:.1f}")
    return f"| {' | '.join(cells)} |"
