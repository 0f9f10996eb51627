"""Preference pairs from SFT rows: the row's answer is chosen, one that is wrong in content is rejected.

A model must not be able to tell the two apart by form. For each row the wrong answer is taken that evens out length,
echo, negation and refusal over all pairs; pairs that nothing evens out are left out. What remains differs in what it
says. Synthetic all the same: real preferences need people.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.starters.balance import FORMS, amounts, balanced, even_choices, lead_of
from picochat_trainer.tuning.starters.rejections import Donors, Rejection


@dataclass(frozen=True, kw_only=True)
class PreferenceStarter:
    rows: tuple[PreferenceRow, ...]
    leads: dict[str, float]
    """Per form the share of pairs in which chosen leads less the share in which rejected does."""
    num_conversations: int
    """Rows left out, since a pair has one prompt only."""
    num_without_rejection: int
    num_unbalanced: int
    """Pairs left out, since they would give the answer away by its form."""


def preference_starter(rows: Sequence[ChatRow], *, max_items: int = 0, seed: int) -> PreferenceStarter:
    """At most `max_items` pairs (0: as many as rows), in the order of the rows."""
    rng = random.Random(f"{seed} starter preferences")
    single = [row for row in rows if not row.is_multi_turn and not row.has_system and not row.tools]
    donors = Donors(single)
    chances: list[tuple[ChatRow, list[Rejection]]] = []
    num_without = 0
    for row in rng.sample(single, len(single)):
        if max_items and len(chances) == max_items:
            break
        rejections = donors.rejections(row, rng)
        num_without += not rejections
        if rejections:
            chances.append((row, rejections))
    pairs = _even_pairs(chances)
    leads = [lead_of(pair.prompt, pair.chosen, pair.rejected) for pair in pairs]
    kept = balanced(leads)
    ordered = sorted((pairs[index] for index in kept), key=lambda pair: pair.line)
    return PreferenceStarter(
        rows=tuple(pair.model_copy(update={"line": line}) for line, pair in enumerate(ordered, start=1)),
        leads={
            form: round(sum(leads[index][i] for index in kept) / max(1, len(kept)), 4)
            for i, form in enumerate(FORMS)
        },
        num_conversations=len(rows) - len(single),
        num_without_rejection=num_without,
        num_unbalanced=len(pairs) - len(kept),
    )


def _even_pairs(chances: Sequence[tuple[ChatRow, list[Rejection]]]) -> list[PreferenceRow]:
    """One pair per row, the forms as even as the candidates allow."""
    differences = [
        np.array([amounts(row.user, row.assistant)])
        - np.array([amounts(row.user, rejection.text) for rejection in rejections])
        for row, rejections in chances
    ]
    choices = even_choices(differences, [[r.kind for r in rejections] for _, rejections in chances])
    return [_pair(row, rejections[i]) for (row, rejections), i in zip(chances, choices, strict=True)]


def _pair(row: ChatRow, rejection: Rejection) -> PreferenceRow:
    return PreferenceRow(
        line=row.line,
        prompt=row.user,
        chosen=row.assistant,
        rejected=rejection.text,
        category=row.category,
        group=row.group,
        rejection=rejection.kind,
    )
