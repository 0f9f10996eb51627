"""Honesty reports for people: the verdict, the matrix, the measures with their sources, and what was found where."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

SHOWN_FINDINGS: Final = 40

_COUNTS: Final = {
    "exact_prompt_leaks": "eval prompts in SFT rows",
    "preference_prompt_leaks": "eval prompts in preference rows",
    "corpus_prompt_hits": "eval prompts in the corpus",
    "near_prompt_leaks": "eval prompts with an edited copy among the tuning rows",
    "duplicate_eval_prompts": "repeated eval prompts",
    "trained_documents": "documents that were trained on",
    "held_out_documents": "documents that were held out",
    "trained_rows": "SFT rows that were trained on",
    "trained_prompt_hits": "eval prompts in what was trained on",
    "num_generated": "generated texts that were compared",
}


def honesty_markdown(title: str, report: Mapping[str, Any]) -> str:
    """One page about a data report or an audit report."""
    lines = [
        f"# {title}",
        "",
        f"Status: **{report['status']}** - {report['summary']}.",
        "",
        "| count | |",
        "|---|---:|",
        *(f"| {what} | {report[name]:,} |" for name, what in _COUNTS.items() if name in report),
        "",
        "## Contamination matrix",
        "",
        "Each set was looked for in each set before it: prompt alone, and prompt with answer.",
        "",
        *_matrix(report["contamination_matrix"]["pairs"], report["measures"]),
        "",
        "## Measures",
        "",
        "| measure | marks an item from | rule | source |",
        "|---|---:|---|---|",
        *(
            f"| {name} | {m['threshold']:g} | {_cell(m['description'])} | {_cell(m['source'])} |"
            for name, m in report["measures"].items()
        ),
        "",
        "## Eval items that are not clean",
        "",
        *_dirty(report["dirty_eval_lines"]),
        "",
        "## Findings",
        "",
        *_findings(report["findings"], report["findings_omitted"]),
        "",
        "Every finding was verified on the text. What is not found here may still be known to a model: a paraphrase or "
        "a translation shares no words.",
        "",
    ]
    return "\n".join(lines)


def _matrix(pairs: Sequence[Mapping[str, Any]], measures: Mapping[str, Any]) -> list[str]:
    names = list(measures)
    lines = [
        "| pair | risk | items | contaminated | "
        + " | ".join(names)
        + " | highest coverage | longest match |",
        "|---|---|---:|---:|" + "---:|" * len(names) + "---:|---:|",
    ]
    for pair in pairs:
        if pair["reason"] is not None:
            lines.append(
                f"| {pair['pair']} | {pair['risk']} | {_cell(pair['reason'])} |" + " |" * (len(names) + 3)
            )
            continue
        counts = [max(pair["measures"][name].values()) for name in names]
        lines.append(
            f"| {pair['pair']} | {pair['risk']} | {pair['num_targets']:,} | {pair['num_contaminated']:,} | "
            + " | ".join(f"{count:,}" for count in counts)
            + f" | {pair['max_coverage']:.0%} | {pair['longest_match']:.0%} |"
        )
    return lines


def _dirty(dirty: Mapping[str, Sequence[int]]) -> list[str]:
    rows = [
        f"| {name} | {len(lines):,} | {', '.join(map(str, lines[:20]))}{' ...' if len(lines) > 20 else ''} |"
        for name, lines in dirty.items()
        if lines
    ]
    if not rows:
        return ["Every item is clean by every measure."]
    return ["| measure | items | lines of the eval file |", "|---|---:|---|", *rows]


def _findings(findings: Sequence[Mapping[str, Any]], omitted: int) -> list[str]:
    if not findings:
        return ["Nothing was found."]
    lines = [
        "| what | measure | value | item | place | shared text | fix |",
        "|---|---|---:|---|---|---|---|",
    ]
    for finding in findings[:SHOWN_FINDINGS]:
        target, place = finding["target"], finding["place"]
        where = place["path"] or place["id"]
        lines.append(
            f"| {finding['kind']} | {finding['measure']} | {finding['value']:.2f} | {target['id']} | {_cell(where)} | "
            f"{_cell(finding['span_text'])} | {_cell(finding['fix'])} |"
        )
    hidden = len(findings) - SHOWN_FINDINGS + omitted
    return [*lines, "", f"{hidden:,} more."] if hidden > 0 else lines


def _cell(text: str, limit: int = 160) -> str:
    flat = " ".join(text.split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
