"""Rows of a benchmark profile: the release skills, questions about the pack's own corpus, rows of the hub.

A part that gives fewer rows than its share leaves them to the skills, which have enough; the notes say so.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.normalize import normal_form
from picochat_trainer.tuning.packs.hub_rows import (
    EVAL_SHARES,
    SFT_SHARES,
    HubOptions,
    HubPart,
    R,
    hub_chat,
    hub_eval,
    row_characters,
    row_prompt,
)
from picochat_trainer.tuning.packs.profiles import (
    GROUNDED_SHARE,
    BenchmarkProfile,
    RowSource,
    skill_shares,
)
from picochat_trainer.tuning.release_skills import AnswerStyle, generate_eval, generate_sft
from picochat_trainer.tuning.row import numbered
from picochat_trainer.tuning.rows import ChatRow, EvalItem
from picochat_trainer.tuning.shares import apportioned
from picochat_trainer.tuning.skills.question import Side
from picochat_trainer.tuning.starters.evaluation import eval_items
from picochat_trainer.tuning.starters.sft import sft_rows
from picochat_trainer.tuning.starters.texts import texts_of_side

SKILLS: Final = "release skills"
CORPUS: Final = "own corpus"
SKILLS_LICENSE: Final = "MIT"
"""Of generated rows: this project's own."""
Documents = Callable[[], Iterator[tuple[str, str]]]
"""(name, text) of every document of the pack's corpus."""


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """How rows are made."""

    seed: int
    style: AnswerStyle
    source: RowSource
    hub: HubOptions
    documents: Documents
    corpus_license: str | None
    """Of rows about the pack's corpus."""


@dataclass(kw_only=True)
class Made:
    """Rows of both sides, and how they came to be."""

    chat: list[ChatRow] = field(default_factory=list)
    eval: list[EvalItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """Normal forms of all prompts, of both sides."""


def make_rows(
    profile: BenchmarkProfile, num_sft: int, num_eval: int, options: RowOptions, made: Made, *, name: str = ""
) -> None:
    """Add rows of a profile to `made`, with prompts that are in none of its rows; `name` parts the seeds of components."""
    sft_left, eval_left = num_sft, num_eval
    if profile is BenchmarkProfile.FULL:
        before = len(made.chat), len(made.eval)
        local_sft, local_eval = _add_hub_rows(num_sft, num_eval, options, made)
        _add_grounded_rows(
            round(local_sft * GROUNDED_SHARE), round(local_eval * GROUNDED_SHARE), options, made
        )
        sft_left -= len(made.chat) - before[0]
        eval_left -= len(made.eval) - before[1]
    elif options.source is RowSource.HF:
        raise ContractError(
            Code.INVALID_VALUE,
            f"the profile {profile} has generated rows only; give --source offline, or a profile with rows of the hub",
            param="--source",
        )
    seed, shares = f"{options.seed} {name}".strip(), skill_shares(profile)
    tags = {"provenance": SKILLS, "license": SKILLS_LICENSE}
    chat = generate_sft(sft_left, seed=seed, style=options.style, shares=shares, seen=made.seen)
    items = generate_eval(eval_left, seed=seed, style=options.style, shares=shares, seen=made.seen)
    made.chat += [row.model_copy(update=tags) for row in chat]
    made.eval += [item.model_copy(update=tags) for item in items]


def shuffled(rows: Sequence[R], seed: int, side: Side) -> list[R]:
    """In random order, with the line numbers that they then have in a file."""
    return numbered(random.Random(f"{seed} pack order {side}").sample(rows, len(rows)))


def _add_hub_rows(num_sft: int, num_eval: int, options: RowOptions, made: Made) -> tuple[int, int]:
    """Add the hub's shares; return how many rows of each side are left for local ones."""
    if options.source is RowSource.OFFLINE:
        return num_sft, num_eval
    sft_counts, eval_counts = apportioned(num_sft, SFT_SHARES), apportioned(num_eval, EVAL_SHARES)
    local = sft_counts.pop("local"), eval_counts.pop("local")
    rng = random.Random(f"{options.seed} hub")
    # Eval prompts first: an SFT row that is one of them is the row to leave out.
    seen = set(made.seen)
    try:
        items = [hub_eval(name, count, options.hub, rng, seen) for name, count in eval_counts.items()]
        chat = [
            hub_chat(name, count, options.hub, rng, options.style, seen) for name, count in sft_counts.items()
        ]
    except ContractError as error:
        if options.source is RowSource.HF:
            raise
        made.notes.append(f"no rows of the hub, offline rows instead: {error.message}")
        return num_sft, num_eval
    made.seen |= seen
    for part in items:
        made.eval += part.rows
        made.notes += _part_notes(part, eval_counts[part.name], "eval")
    for practice in chat:
        made.chat += practice.rows
        made.notes += _part_notes(practice, sft_counts[practice.name], "SFT")
    return local


def _part_notes(part: HubPart[Any], wanted: int, side: str) -> Iterator[str]:
    left_out = ", ".join(f"{count:,} {reason}" for reason, count in part.left_out.items())
    if left_out:
        yield f"{part.name} ({side}): left out {left_out}"
    if len(part.rows) < wanted:
        yield f"{part.name} ({side}): {len(part.rows)} of {wanted} rows; skills take the place of the others"


def _add_grounded_rows(num_sft: int, num_eval: int, options: RowOptions, made: Made) -> None:
    try:
        texts = {side: texts_of_side(options.documents, side) for side in Side}
    except ContractError as error:
        if error.code is not Code.CORPUS_TOO_SMALL:
            raise
        made.notes.append(f"no rows about the corpus: {error.message}")
        return
    tags = {"provenance": CORPUS, "license": options.corpus_license}
    chat = sft_rows(texts[Side.SFT], max_items=num_sft, seed=options.seed) if num_sft else []
    items = eval_items(texts[Side.EVAL], max_items=num_eval, seed=options.seed) if num_eval else []
    new_chat = [row.model_copy(update=tags) for row in _new(chat, options, made)]
    new_items = [item.model_copy(update=tags) for item in _new(items, options, made)]
    for rows, wanted, side in ((new_chat, num_sft, "SFT"), (new_items, num_eval, "eval")):
        if len(rows) < wanted:
            made.notes.append(f"{len(rows)} of {wanted} {side} rows about the corpus: it says no more")
    made.chat += new_chat
    made.eval += new_items


def _new(rows: Iterable[R], options: RowOptions, made: Made) -> Iterator[R]:
    """Those within the budget whose prompt is not there yet."""
    for row in rows:
        key = normal_form(row_prompt(row))
        if key not in made.seen and row_characters(row) <= options.hub.max_characters:
            made.seen.add(key)
            yield row
