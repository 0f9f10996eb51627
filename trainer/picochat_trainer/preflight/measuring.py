"""Preflight's facts about a run folder's data: corpus manifest, SFT rows, eval items, preferences, honesty report.

Reads whole files of rows, never the corpus itself. A file that is not there is a fact, too.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final, TypeVar

from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_contract.preflight_facts import (
    ChatFacts,
    CorpusFacts,
    EvalFacts,
    HonestyFacts,
    MachineFacts,
    PreferenceFacts,
    PreflightFacts,
)
from pydantic import ValidationError

from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.eval_items import EvalItem
from picochat_trainer.tuning.measures import prompt_of
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.row import Problem, Row, scan

R = TypeVar("R", bound=Row)
Locate = Callable[[str], Path]

NO_RULE: Final = "the item has no rule"
"""What `EvalItem` says of an item that any reply would pass."""


def measure(locate: Locate, machine: MachineFacts) -> PreflightFacts:
    """Everything that `judge` needs; raise `corpus_missing` or `file_unreadable` where there is no corpus manifest."""
    external = {path.stem: path for path in sorted(locate(layout.EXTERNAL_DIR).glob("*.jsonl"))}
    return PreflightFacts(
        corpus=corpus_facts(CorpusStore(locate)),
        chat=_of(locate(layout.CHAT), chat_facts),
        eval=_of(locate(layout.EVAL), eval_facts),
        preferences=_of(locate(layout.PREFERENCES), preference_facts),
        external={name: len(_rows(path, EvalItem)[0]) for name, path in external.items()},
        external_sha256={name: file_sha256(path) for name, path in external.items()},
        honesty=_of(locate(layout.HONESTY), honesty_facts),
        machine=machine,
    )


def corpus_facts(store: CorpusStore) -> CorpusFacts:
    manifest = store.manifest
    try:
        if manifest is None:
            raise KeyError(layout.CORPUS_MANIFEST)
        stats, readiness = manifest["stats"], manifest["readiness"]
        return CorpusFacts(
            sha256=store.sha256,
            num_documents=stats["num_documents"],
            num_characters=stats["num_characters"],
            num_bytes=stats["num_bytes"],
            readiness=readiness["status"],
            readiness_summary=readiness["summary"],
            num_read=stats["num_read"],
            num_exact_removed=stats["num_exact_removed"],
            num_near_removed=stats["num_near_removed"],
            num_other_removed=stats["num_other_removed"],
            exact_left=stats["exact_left"],
            near_left=stats["near_left"],
            duplicate_line_rate=stats["duplicate_line_rate"],
            has_documents=bool(manifest["shards"] or manifest["documents"]),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{layout.CORPUS_MANIFEST} has not what preflight needs ({error!r}); run the dataset stage again",
            param=layout.CORPUS_MANIFEST,
        ) from error


def chat_facts(path: Path) -> ChatFacts:
    rows, problems = _rows(path, ChatRow)
    lengths = [(row.skill, len(row.assistant.split())) for row in rows]
    open_lengths = [length for skill, length in lengths if skill is None]
    return ChatFacts(
        sha256=file_sha256(path),
        num_rows=len(rows),
        num_invalid=len(problems),
        num_duplicate_prompts=_num_repeats(rows),
        categories=dict(Counter(row.category or "" for row in rows)),
        skills=dict(Counter(row.skill for row in rows if row.skill is not None)),
        mean_answer_words=fmean(length for _, length in lengths) if lengths else None,
        mean_open_answer_words=fmean(open_lengths) if open_lengths else None,
    )


def eval_facts(path: Path) -> EvalFacts:
    items, problems = _rows(path, EvalItem)
    without_rules = [problem for problem in problems if NO_RULE in problem.message]
    labels = {label for item in items for label in (item.split, item.level) if label}
    return EvalFacts(
        sha256=file_sha256(path),
        num_items=len(items) + len(without_rules),
        num_invalid=len(problems) - len(without_rules),
        num_without_rules=len(without_rules),
        num_unanswerable=sum(not item.answerable for item in items),
        labels=tuple(sorted(labels)),
        skills=dict(Counter(item.skill for item in items if item.skill is not None)),
    )


def preference_facts(path: Path) -> PreferenceFacts:
    rows, _ = _rows(path, PreferenceRow)
    return PreferenceFacts(
        sha256=file_sha256(path), num_rows=len(rows), num_duplicate_prompts=_num_repeats(rows)
    )


def honesty_facts(path: Path) -> HonestyFacts | None:
    """None for a report that cannot be read: preflight then blocks as if there were none."""
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        pairs = {pair["pair"]: pair for pair in report["contamination_matrix"]["pairs"]}
        return HonestyFacts(
            sha256=file_sha256(path),
            status=report["status"],
            corpus_sha256=report["corpus_sha256"],
            chat_sha256=report["chat_sha256"],
            eval_sha256=report["eval_sha256"],
            preferences_sha256=report["preferences_sha256"],
            external_sha256=report["external_sha256"],
            num_eval=report["num_eval"],
            exact_prompt_leaks=report["exact_prompt_leaks"],
            preference_prompt_leaks=report["preference_prompt_leaks"],
            external_leaks=sum(_prompt_hits(pairs, f"{name}_vs_external") for name in ("sft", "preferences")),
            corpus_prompt_hits=report["corpus_prompt_hits"],
            external_corpus_hits=_prompt_hits(pairs, "corpus_vs_external"),
            near_prompt_leaks=report["near_prompt_leaks"],
            duplicate_eval_prompts=report["duplicate_eval_prompts"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


F = TypeVar("F")


def _of(path: Path, facts: Callable[[Path], F]) -> F | None:
    return facts(path) if path.is_file() else None


def _rows(path: Path, model: type[R]) -> tuple[list[R], list[Problem]]:
    rows: list[R] = []
    problems: list[Problem] = []
    for row in scan(path, path.name, model):
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rows.append(row)
    return rows, problems


def _num_repeats(rows: Sequence[Row]) -> int:
    """Rows whose prompt, in normal form, is that of an earlier row."""
    prompts = (prompt_of(row) for row in rows)
    return len(rows) - len({normal_form(prompt) or prompt.strip() for prompt in prompts})


def _prompt_hits(pairs: dict[str, Any], name: str) -> int:
    """Items of a pair's target whose whole prompt stands in its reference, after normalisation."""
    return int(pairs[name]["measures"]["normalised"]["prompt"]) if name in pairs else 0
