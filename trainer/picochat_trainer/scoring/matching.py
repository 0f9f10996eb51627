"""What a reply holds: phrases, refusals, echoes of the prompt, a final answer. Compared in normal form.

Not semantic truth: a phrase is there or it is not.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final

from picochat_trainer.data import normalize

REFUSALS: Final = (
    "I do not know",
    "I don't know",
    "I cannot know",
    "I cannot answer",
    "I can not answer",
    "I can't answer",
    "I am not able to answer",
    "I'm not able to answer",
    "I cannot tell",
    "I can't tell",
    "I do not have that information",
    "I don't have that information",
    "I have no information",
    "I cannot help with that",
)
ECHO_PREFIX: Final = 80  # characters of the prompt that a reply must not start with
MIN_ECHO: Final = 12  # shorter prompts may well be the right beginning of an answer
_ROLE_LABEL: Final = re.compile(r"^\s*(user|assistant|system)\s*:", re.IGNORECASE | re.MULTILINE)
_MARKERS: Final = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
_ANSWER_MARK: Final = re.compile(r"answer\s*(?:is|:)\s*", re.IGNORECASE)
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")


@lru_cache(maxsize=1024)
def normal_form(text: str) -> str:
    """Cached, since a reply is looked at once per phrase."""
    return normalize.normal_form(text)


def holds(text: str, phrase: str) -> bool:
    """True if the words of `phrase` stand in `text` in one run; a phrase without words is looked for as it is."""
    wanted = normal_form(phrase)
    if not wanted:
        return phrase.strip() in text
    return f" {wanted} " in f" {normal_form(text)} "


def is_refusal(reply: str) -> bool:
    return any(holds(reply, phrase) for phrase in REFUSALS)


def echo_reasons(prompt: str, reply: str) -> tuple[str, ...]:
    """Why a reply counts as an echo of the prompt or of the chat format."""
    reasons = []
    if _ROLE_LABEL.search(reply):
        reasons.append("chat_role_label")
    if any(marker in reply for marker in _MARKERS):
        reasons.append("chat_marker")
    start = normal_form(prompt)[:ECHO_PREFIX]
    if len(start) >= MIN_ECHO and normal_form(reply).startswith(start):
        reasons.append("repeats_prompt")
    return tuple(reasons)


def final_answers(reply: str) -> tuple[str, ...]:
    """What may count as the reply's final answer, in normal form.

    With an "answer:" mark only the line after the last one; else the whole reply, its last number, its last word.
    """
    marks = list(_ANSWER_MARK.finditer(reply))
    if marks:
        rest = reply[marks[-1].end() :].strip().split("\n", 1)[0]
        return _unique([rest])
    numbers = _NUMBER.findall(reply)
    last_word = normal_form(reply).rsplit(" ", 1)[-1]
    # Digits without their sign, separators and fraction are another number.
    return _unique([reply, *numbers[-1:], *([] if last_word.isdecimal() else [last_word])])


def answer_matches(reply: str, accepted: Sequence[str]) -> bool:
    """True if a final answer of the reply is one of `accepted`."""
    wanted = {_clean(answer) for answer in accepted}
    return bool(wanted & set(final_answers(reply)))


def _unique(candidates: Sequence[str]) -> tuple[str, ...]:
    cleaned = (_clean(candidate) for candidate in candidates)
    return tuple(dict.fromkeys(candidate for candidate in cleaned if candidate))


def _clean(answer: str) -> str:
    """Normal form; numbers without thousands separators, leading zeros or an empty fraction."""
    text = answer.strip().rstrip(".!?")
    if _NUMBER.fullmatch(text):
        return f"{Decimal(text.replace(',', '')).normalize():f}"
    return normal_form(text) or text
