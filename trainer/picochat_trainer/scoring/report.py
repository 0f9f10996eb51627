"""Reports of eval and fit: JSON for the gate and the pages, Markdown for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from picochat_contract.evidence import Evidence, Score

from picochat_trainer.scoring.analysis import analyse
from picochat_trainer.scoring.judgement import Judgement
from picochat_trainer.scoring.tally import eval_summary

SHOWN_EXAMPLES: Final = 8  # of each kind in the Markdown report


def report_json(
    evidence: Evidence, judgements: Sequence[Judgement], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Evidence at the top level, then everything that explains it."""
    return {
        **evidence.model_dump(mode="json"),
        "config": dict(config),
        "summary": eval_summary(judgements),
        "analysis": analyse(judgements),
        "examples": [asdict(judgement) for judgement in judgements],
    }


def score_table(scores: Mapping[str, Score]) -> list[str]:
    """Markdown rows of named scores."""
    return [
        "| set | passed | of | rate | 95 % interval |",
        "|---|---:|---:|---:|---|",
        *(f"| {name} | {score_cells(score)} |" for name, score in scores.items()),
    ]


def score_cells(score: Score) -> str:
    if score.num_examples == 0:
        return "0 | 0 | not measured | "
    return f"{score.num_passed} | {score.num_examples} | {score.pass_rate:.1%} | {score.low:.1%} - {score.high:.1%}"


def report_markdown(title: str, scores: Mapping[str, Score], judgements: Sequence[Judgement]) -> str:
    """One page: scores, weak spots, recommendations, some replies."""
    analysis = analyse(judgements)
    lines = [f"# {title}", "", *score_table(scores), "", "## Why replies failed", ""]
    if analysis["cluster_counts"]:
        lines += ["| kind | replies |", "|---|---:|"]
        lines += [f"| {name} | {count} |" for name, count in analysis["cluster_counts"].items()]
        lines += ["", "## What to do", ""]
        lines += [f"{r['priority']}. {r['message']}: {r['action']}." for r in analysis["recommendations"]]
    else:
        lines.append("None did." if judgements else "Nothing was asked.")
    for heading, wanted in (("Failed", False), ("Passed", True)):
        shown = [j for j in judgements if j.passed is wanted][:SHOWN_EXAMPLES]
        if shown:
            lines += [
                "",
                f"## {heading}",
                "",
                "| line | prompt | reply | reference | why |",
                "|---:|---|---|---|---|",
            ]
            lines += [_example_row(judgement) for judgement in shown]
    lines += ["", "Rules look for phrases and answers; they do not judge whether a reply is true.", ""]
    return "\n".join(lines)


def _example_row(judgement: Judgement) -> str:
    shown = judgement.reply
    if judgement.is_choice:
        shown = f"{shown} (by log-probability: {judgement.choice_predicted})"
    cells = [judgement.user, shown, judgement.reference or "", ", ".join(judgement.failures)]
    return f"| {judgement.line} | " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str, limit: int = 160) -> str:
    flat = " ".join(text.split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."
