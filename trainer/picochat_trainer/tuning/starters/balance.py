"""Evens out form between chosen and rejected answers: what is left to learn is what they say.

A form is something that can be seen without understanding: length, words of the prompt that come again, negation,
refusal. Two sums are kept near zero over all pairs: how often either side leads in a form, and by how much, since a
linear model over the forms learns nothing where the mean difference is zero.

R rejected answers of a row, F forms
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from picochat_trainer.data.normalize import words
from picochat_trainer.scoring.matching import is_refusal

MAX_IMBALANCE: Final = 0.1  # of the pairs, by which one side may lead in a form
ROUNDS: Final = 4
FORMS: Final = ("words", "characters", "echo", "echoed_words", "negation", "refusal")
_NEGATIONS: Final = frozenset({"not", "no", "never", "nothing", "cannot", "t"})

Lead = tuple[int, ...]
"""For each form 1 where the chosen answer has more of it, -1 where the rejected one has, 0 where neither."""


def amounts(prompt: str, answer: str) -> tuple[float, ...]:
    """How much of each form an answer has."""
    asked, said = set(words(prompt)), words(answer)
    echoed = sum(word in asked for word in said)
    negations = sum(word in _NEGATIONS for word in said)
    echo = echoed / len(said) if said else 0.0
    return len(answer.split()), len(answer), echo, echoed, negations, is_refusal(answer)


def lead_of(prompt: str, chosen: str, rejected: str) -> Lead:
    """Which of two answers has more of each of FORMS."""
    one, other = amounts(prompt, chosen), amounts(prompt, rejected)
    return tuple((a > b) - (a < b) for a, b in zip(one, other, strict=True))


def even_choices(differences: Sequence[NDArray[np.float64]], kinds: Sequence[Sequence[str]]) -> list[int]:
    """For each row which of its rejected answers to take.

    `differences[row]` is (R, F), the chosen answer's amounts less the rejected ones'; among those that even out alike
    the kind is taken that was used least. Rows are gone through a few times, since what evens out a row may come later.
    """
    if not differences:
        return []
    scale = np.abs(np.concatenate(differences)).mean(axis=0) + 1e-9
    effects = [np.hstack([np.sign(by), by / scale]) for by in differences]
    totals = np.zeros(2 * len(FORMS))
    used: Counter[str] = Counter()
    chosen = [-1] * len(effects)
    for _ in range(ROUNDS):
        for row, effect in enumerate(effects):
            if chosen[row] >= 0:
                totals -= effect[chosen[row]]
                used[kinds[row][chosen[row]]] -= 1
            cost = np.square(totals + effect).sum(axis=1).round(1)
            best = int(np.lexsort(([used[kind] for kind in kinds[row]], cost))[0])
            chosen[row] = best
            totals += effect[best]
            used[kinds[row][best]] += 1
    return chosen


def balanced(leads: Sequence[Lead]) -> list[int]:
    """Which pairs to keep, so that no form leads in more than MAX_IMBALANCE of them; the last are left out first."""
    by_lead: dict[Lead, list[int]] = defaultdict(list)
    for index, lead in enumerate(leads):
        by_lead[lead].append(index)
    totals = [sum(lead[form] for lead in leads) for form in range(len(FORMS))]
    left = set(range(len(leads)))
    while left and max(map(abs, totals)) > max(1, MAX_IMBALANCE * len(left)):
        worst = max(range(len(FORMS)), key=lambda form: abs(totals[form]))
        leading = [lead for lead, members in by_lead.items() if members and lead[worst] * totals[worst] > 0]
        dropped = min(leading, key=lambda lead: _uneven(totals, lead))
        left.remove(by_lead[dropped].pop())
        totals = [total - one for total, one in zip(totals, dropped, strict=True)]
    return sorted(left)


def _uneven(totals: Sequence[int], lead: Lead) -> int:
    """Square of what is left of `totals` without a pair."""
    return sum((total - one) ** 2 for total, one in zip(totals, lead, strict=True))
