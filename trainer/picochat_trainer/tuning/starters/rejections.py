"""Answers that are wrong in what they say: the candidates for the rejected side of a preference pair.

number       the last number of the answer with one digit changed
result       the final answer replaced by that of another row of the category
name         a name in it replaced by one from other answers
negation     `is` made `is not`, or the reverse
other        the answer to another question of the same category
unsupported  where nothing can be known, a confident answer to another question
refusal      where the answer is known, a refusal
"""

import random
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from picochat_trainer.scoring.matching import answer_matches, holds, is_refusal
from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.preferences import same_answer
from picochat_trainer.tuning.starters.facts import names_of

NUM_NUMBERS: Final = 3
NUM_NAMES: Final = 4
NUM_DONORS: Final = 8
_NUMBER: Final = re.compile(r"\d+")
_VERB: Final = re.compile(r"\b(is|are|was|were|can|will|does|do|did|has|have|had|may|must)\b(?! not\b)")
_NEGATED: Final = re.compile(r"\b(is|are|was|were|can|will|does|do|did|has|have|had|may|must) not\b")


@dataclass(frozen=True, kw_only=True)
class Rejection:
    kind: str
    text: str


class Donors:
    """Answers and names of all rows, for those that need a wrong one."""

    def __init__(self, rows: Sequence[ChatRow]) -> None:
        self._answers: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
        self._results: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
        self._known: list[tuple[int, str]] = []
        self._refusals: list[tuple[int, str]] = []
        names: dict[str, None] = {}
        for row in rows:
            entry = (len(row.assistant), row.assistant)
            if not row.answerable or is_refusal(row.assistant):
                self._refusals.append(entry)
                continue
            self._known.append(entry)
            self._answers[row.category].append(entry)
            if row.expected_final_answer:
                self._results[row.category].append(
                    (len(row.expected_final_answer), row.expected_final_answer)
                )
            names |= dict.fromkeys(names_of(row.assistant))
        self._names = sorted(names, key=lambda name: (len(name), name))
        for answers in (*self._answers.values(), *self._results.values(), self._known, self._refusals):
            answers[:] = sorted(set(answers))

    def rejections(self, row: ChatRow, rng: random.Random) -> list[Rejection]:
        """Wrong answers to `row`, none of which holds the right one or is held by it."""
        refuses = not row.answerable or is_refusal(row.assistant)
        candidates = self._for_refusal(row, rng) if refuses else self._for_answer(row, rng)
        return [candidate for candidate in candidates if _is_wrong(candidate.text, row)]

    def _for_refusal(self, row: ChatRow, rng: random.Random) -> Iterator[Rejection]:
        for text in _near(self._known, len(row.assistant), rng):
            yield Rejection(kind="unsupported", text=text)

    def _for_answer(self, row: ChatRow, rng: random.Random) -> Iterator[Rejection]:
        answer = row.assistant
        for text in _other_numbers(answer, row.user, rng):
            yield Rejection(kind="number", text=text)
        result = row.expected_final_answer
        if result and result in answer:
            before, _, after = answer.rpartition(result)
            for other in _near(self._results[row.category], len(result), rng):
                yield Rejection(kind="result", text=f"{before}{other}{after}")
        for name in names_of(answer):
            for other in self._similar_names(name, rng):
                yield Rejection(kind="name", text=answer.replace(name, other))
        for text in (_VERB.sub(r"\1 not", answer, count=1), _NEGATED.sub(r"\1", answer, count=1)):
            yield Rejection(kind="negation", text=text)
        for text in _near(self._answers[row.category], len(answer), rng):
            if not _shares_particulars(answer, text):
                yield Rejection(kind="other", text=text)
        for text in _near(self._refusals, len(answer), rng)[:1]:
            yield Rejection(kind="refusal", text=text)

    def _similar_names(self, name: str, rng: random.Random) -> list[str]:
        """Names of about the length, so that a swap does not show in it."""
        place = bisect_left(self._names, len(name), key=len)
        near = self._names[max(0, place - 2 * NUM_NAMES) : place + 4 * NUM_NAMES]
        fitting = [o for o in near if o != name and len(o.split()) == len(name.split()) and o not in name]
        return rng.sample(fitting, min(NUM_NAMES, len(fitting)))


def _near(answers: Sequence[tuple[int, str]], length: int, rng: random.Random) -> list[str]:
    """Answers of about `length` characters, some shorter and some longer, in random order."""
    place = bisect_left(answers, (length, ""))
    near = [text for _, text in answers[max(0, place - NUM_DONORS) : place + NUM_DONORS]]
    return rng.sample(near, min(NUM_DONORS, len(near)))


def _other_numbers(answer: str, prompt: str, rng: random.Random) -> Iterator[str]:
    """The last number is the result of a worked answer; as many digits as before."""
    found = list(_NUMBER.finditer(answer))
    if not found:
        return
    last = found[-1]
    for _ in range(NUM_NUMBERS):
        place = rng.randrange(len(last[0]))
        digit = rng.choice([d for d in "123456789" if d != last[0][place]])
        number = last[0][:place] + digit + last[0][place + 1 :]
        # A number of the question would be an echo.
        if number not in _NUMBER.findall(prompt):
            yield answer[: last.start()] + number + answer[last.end() :]


def _shares_particulars(one: str, other: str) -> bool:
    """Answers with a name or a number in common may both be right."""
    return any(holds(other, particular) for particular in [*names_of(one), *_NUMBER.findall(one)])


def _is_wrong(text: str, row: ChatRow) -> bool:
    """True if `text` neither is, holds nor is held by what makes an answer right."""
    if same_answer(text, row.assistant) or holds(row.assistant, text) or holds(text, row.assistant):
        return False
    if row.expected_final_answer:
        return not answer_matches(text, [row.expected_final_answer])
    return not row.fit_must_include or not all(holds(text, phrase) for phrase in row.fit_must_include)
