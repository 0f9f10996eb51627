"""Scores on all items and on those that a contamination measure leaves: what the leaks are worth.

The difference is the estimated performance gain of ConTAM (Singh et al., arXiv 2411.03923), for each measure.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from picochat_contract.errors import Code, ContractError

from picochat_trainer.scoring.judgement import Judgement
from picochat_trainer.scoring.tally import score_of

DirtyLines = Mapping[str, frozenset[int]]
"""Name of a measure to the lines of the eval file that it marks."""


def read_dirty_lines(honesty_report: Path, eval_sha256: str) -> DirtyLines | None:
    """What the honesty report says of this eval file; None where there is no report."""
    if not honesty_report.is_file():
        return None
    try:
        report = json.loads(honesty_report.read_text(encoding="utf-8"))
        about = report["eval_sha256"]
        dirty = {name: frozenset(map(int, lines)) for name, lines in report["dirty_eval_lines"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{honesty_report} is no honesty report ({error!r}); run the honesty stage again",
            param=str(honesty_report),
        ) from error
    if about != eval_sha256:
        raise ContractError(
            Code.INPUT_CHANGED,
            f"{honesty_report} is about an eval file with sha256 {about[:12]}, this one has {eval_sha256[:12]}; "
            "run the honesty stage again",
            param=str(honesty_report),
        )
    return dirty


def all_dirty(dirty: DirtyLines | None) -> frozenset[int] | None:
    """Lines that any measure marks."""
    return None if dirty is None else frozenset().union(*dirty.values())


def clean_subsets(judgements: Sequence[Judgement], dirty: DirtyLines | None) -> dict[str, dict[str, Any]]:
    """By measure: how many items it marks, the score with and without them, and the estimated performance gain."""
    full = score_of(j.passed for j in judgements)
    subsets: dict[str, dict[str, Any]] = {}
    for name, lines in sorted((dirty or {}).items()):
        clean = score_of(j.passed for j in judgements if j.line not in lines)
        marked = score_of(j.passed for j in judgements if j.line in lines)
        subsets[name] = {
            "num_dirty": marked.num_examples,
            "clean": clean.model_dump(mode="json"),
            "dirty": marked.model_dump(mode="json"),
            "estimated_performance_gain": full.pass_rate - clean.pass_rate if clean.num_examples else None,
        }
    return subsets
