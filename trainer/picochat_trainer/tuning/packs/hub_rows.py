"""Rows of four public datasets: smoltalk, MMLU and GSM8K to practise on, ARC, MMLU and GSM8K to be measured by.

SFT rows come from a training split and eval items from a test split. Each row says which row of which commit it is,
and under which licence. Rows are drawn from the beginning of a split, since a stream has no end that is known.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.imports.hub import DatasetRequest, HubRows, open_dataset
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tuning.external import external_items
from picochat_trainer.tuning.release_skills import AnswerStyle
from picochat_trainer.tuning.row import Problem, TaskRow, build
from picochat_trainer.tuning.rows import ChatRow, EvalItem

SCANNED_ROWS: Final = 20_000
"""Rows of a split that are looked at; all of the test splits, a sample of the larger training splits."""
_CALCULATION: Final = re.compile(r"<<[^<>]*>>")  # GSM8K's notes for a calculator
_RESULT_LINE: Final = re.compile(r"\n?####[^\n]*$")
LETTERS: Final = "ABCD"
R = TypeVar("R", bound=TaskRow)


@dataclass(frozen=True, kw_only=True)
class HubDataset:
    """One dataset and the splits that are taken from it."""

    dataset: str
    config: str | None
    sft_split: str | None
    eval_split: str | None
    license: str
    """Where the hub's card says none."""


DATASETS: Final[dict[str, HubDataset]] = {
    "smoltalk": HubDataset(
        dataset="HuggingFaceTB/smoltalk",
        config="all",
        sft_split="train",
        eval_split=None,
        license="apache-2.0",
    ),
    "mmlu": HubDataset(
        dataset="cais/mmlu", config="all", sft_split="auxiliary_train", eval_split="test", license="mit"
    ),
    "gsm8k": HubDataset(
        dataset="openai/gsm8k", config="main", sft_split="train", eval_split="test", license="mit"
    ),
    "arc": HubDataset(
        dataset="allenai/ai2_arc",
        config="ARC-Challenge",
        sft_split=None,
        eval_split="test",
        license="cc-by-sa-4.0",
    ),
}
SFT_SHARES: Final = {"smoltalk": 0.20, "mmlu": 0.18, "gsm8k": 0.12, "local": 0.50}
EVAL_SHARES: Final = {"arc": 0.25, "mmlu": 0.20, "gsm8k": 0.15, "local": 0.40}


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """How the datasets are opened."""

    copies: Mapping[str, str] = field(default_factory=dict)
    """Folders with a local copy, by name: a clone, whose card (README.md) names the configs and splits, or files
    data/<split>-00000-of-00001.<kind>."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    """Commits to read, by name."""
    max_characters: int
    """Rows with longer prompt and answer are left out."""


@dataclass(frozen=True, kw_only=True)
class HubPart(Generic[R]):
    """What one split gave."""

    name: str
    rows: tuple[R, ...]
    provenance: str
    license: str
    left_out: dict[str, int]


def hub_chat(
    name: str, count: int, options: HubOptions, rng: random.Random, style: AnswerStyle, seen: set[str]
) -> HubPart[ChatRow]:
    """At most `count` SFT rows of a dataset whose prompts are not in `seen`; raise ContractError where it cannot be read."""
    return _drawn(name, DATASETS[name].sft_split, count, options, rng, seen, _chat_maker(name, style))


def hub_eval(
    name: str, count: int, options: HubOptions, rng: random.Random, seen: set[str]
) -> HubPart[EvalItem]:
    """As `hub_chat`, eval items of its test split."""
    return _drawn(
        name, DATASETS[name].eval_split, count, options, rng, seen, lambda n, raw: _item(name, n, raw)
    )


def _drawn(
    name: str,
    split: str | None,
    count: int,
    options: HubOptions,
    rng: random.Random,
    seen: set[str],
    make: Callable[[int, dict[str, Any]], R],
) -> HubPart[R]:
    assert split is not None
    source = _open(name, split, options)
    place = f"{_place(name, source, options)}/{split}"
    license = source.license or DATASETS[name].license
    kept: dict[str, R] = {}
    left_out: Counter[str] = Counter()
    for number, raw in _rows(name, source):
        try:
            row = make(number, raw)
        except ContractError:
            left_out["not a row of the expected shape"] += 1
            continue
        key = normal_form(row_prompt(row))
        if row_characters(row) > options.max_characters:
            left_out["longer than the budget"] += 1
        elif key in seen or key in kept:
            left_out["prompt that is there already"] += 1
        else:
            kept[key] = row.model_copy(update={"provenance": f"{place}#{number}", "license": license})
    chosen = rng.sample(list(kept), min(count, len(kept)))
    seen.update(chosen)
    rows = tuple(kept[key] for key in chosen)
    return HubPart(name=name, rows=rows, provenance=place, license=license, left_out=dict(left_out))


def row_prompt(row: TaskRow) -> str:
    """What a model reads before it answers."""
    if isinstance(row, ChatRow):
        return row.prompt_text
    assert isinstance(row, EvalItem)
    return row.user


def row_characters(row: TaskRow) -> int:
    """Characters of prompt and answer."""
    if isinstance(row, ChatRow):
        return len(row.prompt_text) + len(row.assistant)
    assert isinstance(row, EvalItem)
    return len(row.user) + len(row.reference or "")


def _open(name: str, split: str, options: HubOptions) -> HubRows:
    known = DATASETS[name]
    copy = options.copies.get(name)
    has_configs = copy is None or Path(copy, "README.md").is_file()
    return open_dataset(
        DatasetRequest(
            dataset=copy or known.dataset,
            config=known.config if has_configs else None,
            split=split,
            revision=options.revisions.get(name),
        )
    )


def _place(name: str, source: HubRows, options: HubOptions) -> str:
    known = DATASETS[name]
    if name in options.copies:
        return f"copy of {known.dataset}"
    return f"hf:{known.dataset}@{source.revision}/{known.config}"


def _rows(name: str, source: HubRows) -> list[tuple[int, dict[str, Any]]]:
    try:
        with source.after(0) as rows:
            return list(enumerate(islice(rows, SCANNED_ROWS)))
    except (OSError, ValueError, RuntimeError) as error:
        raise ContractError(
            Code.CORPUS_MISSING, f"reading the dataset {name} failed: {error}", param="--source"
        ) from error


def _item(name: str, number: int, raw: dict[str, Any]) -> EvalItem:
    answer = raw.get("answer")
    if name == "mmlu" and isinstance(answer, int) and 0 <= answer < len(LETTERS):
        raw = {**raw, "answer": LETTERS[answer]}  # a class label, which counts from 0
    [item] = external_items([(number + 1, raw)], name)
    return item.model_copy(update={"split": "heldout", "line": 0})


def _chat_maker(name: str, style: AnswerStyle) -> Callable[[int, dict[str, Any]], ChatRow]:
    match name:
        case "smoltalk":
            return lambda number, raw: _built(
                {"messages": raw.get("messages"), "category": name, "line": number}
            )
        case "gsm8k":
            return lambda number, raw: _worked(_item(name, number, raw), style)
    return lambda number, raw: _chosen(_item(name, number, raw))


def _chosen(item: EvalItem) -> ChatRow:
    """The letter is what a choice prompt asks for."""
    return _built(
        {
            "user": item.user,
            "assistant": item.correct_choice,
            "category": item.category,
            "fit_normalized_answer": item.correct_choice,
            "fit_normalized_answer_required": True,
            "line": 0,
        }
    )


def _worked(item: EvalItem, style: AnswerStyle) -> ChatRow:
    working = _RESULT_LINE.sub("", _CALCULATION.sub("", item.reference or "")).strip()
    result = item.normalized_answer
    return _built(
        {
            "user": item.user,
            "assistant": f"{working}\nFinal answer: {result}" if style == "scratchpad" else result,
            "category": item.category,
            "answer_style": style,
            "expected_final_answer": result,
            "fit_normalized_answer": result,
            "fit_normalized_answer_required": True,
            "line": 0,
        }
    )


def _built(values: dict[str, Any]) -> ChatRow:
    row = build(values, ChatRow)
    if isinstance(row, Problem):
        raise ContractError(Code.BAD_ROW, row.message, param="--source")
    return row
