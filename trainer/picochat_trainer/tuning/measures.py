"""Measures on rows of a tuning file: repeats, families, spreads, balance, constant answers, pairs."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from rapidfuzz import fuzz

from picochat_trainer.data.normalize import normal_form, words
from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.eval_items import EvalItem
from picochat_trainer.tuning.inspection import (
    ConstantAnswer,
    Families,
    Pairs,
    Repeat,
    Repeats,
    Rules,
    Shapes,
    Spread,
)
from picochat_trainer.tuning.near_prompts import near_prompts
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.row import Row, TaskRow

UNCATEGORIZED: Final = "none"
MAX_EXAMPLES: Final = 10
SHOWN_CHARACTERS: Final = 200
MIN_CONSTANT_ROWS: Final = 8  # of fewer rows one answer is no pattern
ECHO: Final = 0.9  # ratio of characters, in order, from which an answer counts as the prompt again
_RUNNING_NUMBER: Final = re.compile(r"[-_/ ]*\d+$")
_QUOTED: Final = re.compile(r"\"[^\"]*\"|'[^']*'|`[^`]*`|\u201c[^\u201d]*\u201d")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


def prompt_of(row: Row) -> str:
    """What is asked, of a conversation all that the user says; shared system texts and tools do not count."""
    if isinstance(row, ChatRow):
        return "\n".join(row.user_texts)
    if isinstance(row, PreferenceRow):
        return row.prompt
    assert isinstance(row, EvalItem)
    return row.user


def spread(counts: Sequence[int]) -> Spread | None:
    """None for no counts."""
    if not counts:
        return None
    values = np.asarray(counts)
    return Spread(
        least=int(values.min()),
        mean=round(float(values.mean()), 2),
        median=float(np.quantile(values, 0.5)),
        p90=float(np.quantile(values, 0.9, method="higher")),
        most=int(values.max()),
    )


def repeats(rows: Sequence[Row]) -> Repeats:
    """Prompts that come again, exactly in normal form or nearly."""
    first: dict[str, Row] = {}
    exact: list[Repeat] = []
    for row in rows:
        prompt = prompt_of(row)
        # A prompt of signs only has no words; its own text then stands for it.
        earlier = first.setdefault(normal_form(prompt) or prompt.strip(), row)
        if earlier is not row:
            exact.append(_repeat(row, earlier, 1.0))
    prompts, kept = list(first), list(first.values())
    near = [_repeat(kept[n.index], kept[n.earlier], n.similarity) for n in near_prompts(prompts)]
    return Repeats(
        num_exact=len(exact),
        exact_share=_share(len(exact), len(rows)),
        num_near=len(near),
        near_share=_share(len(near), len(rows)),
        exact_examples=tuple(exact[:MAX_EXAMPLES]),
        near_examples=tuple(near[:MAX_EXAMPLES]),
    )


def families(rows: Sequence[Row]) -> Families:
    """Rows by template."""
    counts = Counter(_family(row) for row in rows)
    largest = counts.most_common(MAX_EXAMPLES)
    return Families(
        num_families=len(counts),
        largest=dict(largest),
        largest_share=_share(largest[0][1] if largest else 0, len(rows)),
    )


def category_counts(rows: Iterable[Row]) -> dict[str, int]:
    return counted(row.category or UNCATEGORIZED for row in rows)


def counted(names: Iterable[str | None]) -> dict[str, int]:
    """Counts by name, the largest first; rows without a name are left out."""
    return dict(Counter(name for name in names if name is not None).most_common())


def entropy(counts: Mapping[str, int]) -> float | None:
    """Shannon entropy over its largest possible value for so many categories; a single category has 0."""
    total = sum(counts.values())
    if not total:
        return None
    if len(counts) == 1:
        return 0.0
    shares = [count / total for count in counts.values() if count]
    return round(-sum(share * math.log(share) for share in shares) / math.log(len(counts)), 4)


def curriculum(rows: Sequence[Row], side: str) -> str | None:
    """What the rows are about: `skill_sft`, `domain_eval`, `mixed_behavior_skill_sft`, `mixed_eval` and the like."""
    behaviors = {"identity", "refusal"}
    kinds = {
        "domain" if row.skill is None else "behavior" if row.skill in behaviors else "skill" for row in rows
    }
    if not kinds:
        return None
    if len(kinds) == 1:
        return f"{kinds.pop()}_{side}"
    return f"mixed_behavior_skill_{side}" if "domain" not in kinds else f"mixed_{side}"


def constant_answers(rows: Sequence[TaskRow]) -> tuple[ConstantAnswer, ...]:
    """The commonest answer of each category that has enough answerable rows, the most constant first."""
    answers: dict[str, Counter[str]] = {}
    for row in rows:
        answer = _answer_key(row)
        if answer is not None and row.answerable:
            answers.setdefault(row.category or UNCATEGORIZED, Counter())[answer] += 1
    found = []
    for category, counts in answers.items():
        answer, num_rows = counts.most_common(1)[0]
        if counts.total() >= MIN_CONSTANT_ROWS and num_rows > 1:
            found.append(
                ConstantAnswer(
                    category=category,
                    answer=answer[:SHOWN_CHARACTERS],
                    num_rows=num_rows,
                    share=_share(num_rows, counts.total()),
                )
            )
    return tuple(sorted(found, key=lambda constant: -constant.share)[:MAX_EXAMPLES])


def shapes(rows: Sequence[ChatRow]) -> Shapes | None:
    turns = spread([sum(turn.role != "system" for turn in row.messages) or 2 for row in rows])
    if turns is None:
        return None
    return Shapes(
        num_pairs=sum(not row.messages for row in rows),
        num_conversations=sum(bool(row.messages) for row in rows),
        num_with_system=sum(row.has_system for row in rows),
        num_with_tools=sum(bool(row.tools) for row in rows),
        num_with_tool_calls=sum(any(turn.tool_calls for turn in row.messages) for row in rows),
        turns=turns,
    )


def rules(items: Sequence[EvalItem]) -> Rules | None:
    """Counted per item: many rules on one item say nothing about the others."""
    if not items:
        return None
    sizes = Counter(len(item.rules) for item in items)
    return Rules(
        num_items=counted(rule for item in items for rule in item.rules),
        items_by_num_rules=dict(sorted(sizes.items())),
        least_rules=min(sizes),
    )


def pairs(rows: Sequence[PreferenceRow]) -> Pairs | None:
    if not rows:
        return None
    sizes = [(len(row.chosen.split()), len(row.rejected.split())) for row in rows]
    longer = sum(chosen > rejected for chosen, rejected in sizes)
    shorter = sum(chosen < rejected for chosen, rejected in sizes)
    ties = len(rows) - longer - shorter
    seen = {(normal_form(row.prompt), normal_form(row.chosen), normal_form(row.rejected)) for row in rows}
    return Pairs(
        chosen_longer_share=_share(longer, len(rows)),
        rejected_longer_share=_share(shorter, len(rows)),
        length_only_accuracy=round((max(longer, shorter) + ties / 2) / len(rows), 4),
        mean_length_ratio=round(math.exp(sum(math.log(c / r) for c, r in sizes) / len(rows)), 4),
        chosen_echo_share=_share(sum(echoes(row.prompt, row.chosen) for row in rows), len(rows)),
        rejected_echo_share=_share(sum(echoes(row.prompt, row.rejected) for row in rows), len(rows)),
        content_difference=round(sum(_difference(row.chosen, row.rejected) for row in rows) / len(rows), 4),
        num_reversed=sum((prompt, rejected, chosen) in seen for prompt, chosen, rejected in seen),
    )


def echoes(prompt: str, answer: str) -> bool:
    """True if the answer says little more than the prompt."""
    return bool(fuzz.ratio(normal_form(prompt), normal_form(answer), score_cutoff=100 * ECHO))


def _repeat(row: Row, earlier: Row, similarity: float) -> Repeat:
    return Repeat(
        line=row.line,
        earlier_line=earlier.line,
        similarity=similarity,
        prompt=prompt_of(row)[:SHOWN_CHARACTERS],
    )


def _family(row: Row) -> str:
    if row.group is not None:
        return _RUNNING_NUMBER.sub("", row.group) or row.group
    shape = _NUMBER.sub("#", _QUOTED.sub("*", prompt_of(row)))
    return " ".join(shape.casefold().split())[:SHOWN_CHARACTERS]


def _answer_key(row: TaskRow) -> str | None:
    """What would have to be said to be right."""
    if isinstance(row, ChatRow):
        return normal_form(row.assistant) or row.assistant.strip()
    assert isinstance(row, EvalItem)
    answer = row.correct_choice or next(iter((*row.accepted_answers, *row.required_phrases)), None)
    return answer and (normal_form(answer) or answer)


def _difference(one: str, other: str) -> float:
    left, right = Counter(words(one)), Counter(words(other))
    union = (left | right).total()
    return 1 - (left & right).total() / union if union else 0.0


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
