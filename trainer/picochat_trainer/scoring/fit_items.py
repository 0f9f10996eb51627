"""SFT rows as eval items: is the model able to say what it was taught, and the same kind of thing it was not?"""

import random
from collections.abc import Sequence
from typing import Any

from picochat_trainer.tuning.rows import ChatRow, EvalItem

MIN_GROUP_ROWS = 10  # the smallest sample that a gate judges
ROOM_WORDS = 8


class FitItem(EvalItem):
    """An SFT row as it is asked again: with all that stands before its last answer."""

    context: tuple[dict[str, Any], ...]
    """Turns before the answer, as `Tokenizer.encode_chat` takes them."""
    offered_tools: tuple[dict[str, Any], ...] = ()

    @property
    def messages_list(self) -> list[dict[str, Any]]:
        return list(self.context)

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        return self.offered_tools


def fit_item(row: ChatRow) -> FitItem:
    """The eval item of an SFT row: its `fit_*` rules, or its whole last answer."""
    common: dict[str, Any] = {
        "context": row.messages_list[:-1],
        "offered_tools": row.tools,
        "line": row.line,
        "user": row.user,
        "category": row.category,
        "group": row.group,
        "answerable": row.answerable,
        "curriculum_stage": row.curriculum_stage,
        "reference_answer": row.fit_reference_answer or row.assistant,
        "max_words": row.fit_max_words or len(row.assistant.split()) + ROOM_WORDS,
    }
    if not row.answerable:
        # Which words refuse it is free; that it refuses is the rule.
        return FitItem.model_validate(common)
    if row.fit_normalized_answer_required:
        answer = row.fit_normalized_answer or row.expected_final_answer or row.assistant
        return FitItem.model_validate(
            {**common, "normalized_answer": answer, "normalized_answer_required": True}
        )
    return FitItem.model_validate({**common, "must_include": row.fit_must_include or (row.assistant,)})


def sample_rows(rows: Sequence[ChatRow], lines: Sequence[int], *, max_rows: int, seed: int) -> list[ChatRow]:
    """The rows at `lines` (1-based), or an even sample per skill group where there are more than `max_rows`.

    A group gets at least ten rows where it has them, also where that passes `max_rows`: fewer are no evidence.
    """
    wanted = set(lines)
    found = [row for row in rows if row.line in wanted]
    if len(found) <= max_rows:
        return found
    groups: dict[str, list[ChatRow]] = {}
    for row in found:
        groups.setdefault(row.skill or "", []).append(row)
    rng = random.Random(f"{seed} fit")
    shares = _even_shares({name: len(members) for name, members in groups.items()}, max_rows)
    chosen = [row for name, members in groups.items() for row in rng.sample(members, shares[name])]
    return sorted(chosen, key=lambda row: row.line)


def _even_shares(sizes: dict[str, int], total: int) -> dict[str, int]:
    """Equal shares of `total`; what a small group leaves goes to the others; never under the minimum."""
    shares: dict[str, int] = {}
    left = total
    for position, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        fair = max(left // (len(sizes) - position), MIN_GROUP_ROWS)
        shares[name] = min(size, fair)
        left = max(0, left - shares[name])
    return shares
