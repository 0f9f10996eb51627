"""Generates the release-skill rows: SFT practice and an eval that shares no wording, fact, word or number pair with it.

Equal seeds give equal files. Prompts are unique in their normal form, within and across the two files. The shares
differ from the ones that the mission describes (refusal and choice .10): a gate needs ten unanswerable items, so the
default eval of 150 must hold more of them.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from picochat_contract.errors import Code, SpecError

from picochat_trainer.data.normalize import normal_form
from picochat_trainer.scoring.matching import holds
from picochat_trainer.tuning.rows import ChatRow, EvalItem
from picochat_trainer.tuning.shares import apportioned
from picochat_trainer.tuning.skills import arithmetic, choice, identity, refusal, spelling
from picochat_trainer.tuning.skills.question import Question, Side, Skill

AnswerStyle = Literal["direct", "scratchpad"]
SKILLS: Final[dict[str, Skill]] = {
    "math": arithmetic,
    "spelling": spelling,
    "identity": identity,
    "choice": choice,
    "refusal": refusal,
}
SHARES: Final = {"math": 0.25, "spelling": 0.20, "identity": 0.20, "choice": 0.15, "refusal": 0.20}
MAX_REPEATS: Final = (
    20_000  # questions in a row that were asked before: then the supply is taken to be used up
)
ROOM_WORDS: Final = 4  # a reply may be this much longer than the answer
SCRATCHPAD_WORDS: Final = 40


def generate_sft(
    num_rows: int,
    *,
    seed: int | str,
    style: AnswerStyle = "direct",
    shares: Mapping[str, float] = SHARES,
    seen: set[str] | None = None,
) -> list[ChatRow]:
    """Practice rows of the skills in `shares`, mixed. Prompts in `seen` (normal forms) are not made; it grows by them."""
    questions = _questions(Side.SFT, num_rows, seed, shares, seen)
    return [_chat_row(question, style, line) for line, question in enumerate(questions, 1)]


def generate_eval(
    num_items: int,
    *,
    seed: int | str,
    style: AnswerStyle = "direct",
    shares: Mapping[str, float] = SHARES,
    seen: set[str] | None = None,
) -> list[EvalItem]:
    """Eval items of the skills in `shares`, mixed; as `generate_sft`."""
    questions = _questions(Side.EVAL, num_items, seed, shares, seen)
    return [_eval_item(question, style, line) for line, question in enumerate(questions, 1)]


def _questions(
    side: Side, count: int, seed: int | str, shares: Mapping[str, float], seen: set[str] | None
) -> list[Question]:
    chosen: list[Question] = []
    seen = set() if seen is None else seen
    for name, share in apportioned(count, shares).items():
        stream = SKILLS[name].questions(side, random.Random(f"{seed} {name} {side}"))
        chosen += _take(stream, share, seen, name, side)
    random.Random(f"{seed} order {side}").shuffle(chosen)
    return chosen


def _take(
    stream: Iterator[Question], count: int, seen: set[str], name: str, side: Side
) -> Iterator[Question]:
    taken = repeats = 0
    while taken < count:
        question = next(stream, None)
        if question is None or repeats > MAX_REPEATS:
            raise SpecError(
                Code.INVALID_VALUE,
                f"the {name} generator has only {taken} different {side} rows, {count} are wanted; "
                f"ask for fewer (dataset.{side}_rows, --{side}-rows)",
                param=f"dataset.{side}_rows",
            )
        key = normal_form(question.user)
        if key in seen:
            repeats += 1
            continue
        seen.add(key)
        taken, repeats = taken + 1, 0
        yield question


def _chat_row(question: Question, style: AnswerStyle, line: int) -> ChatRow:
    return ChatRow(
        line=line,
        user=question.user,
        assistant=_reply(question, style),
        category=question.category,
        group=question.group,
        answerable=question.answerable,
        curriculum_stage=question.stage,
        answer_style=style,
        expected_final_answer=question.final_answer,
        fit_must_include=question.must_include or _own_phrase(question) or None,
        fit_normalized_answer=question.final_answer,
        fit_normalized_answer_required=question.final_answer is not None,
        fit_max_words=_max_words(question, style),
    )


def _eval_item(question: Question, style: AnswerStyle, line: int) -> EvalItem:
    is_choice = bool(question.choice_labels)
    return EvalItem(
        line=line,
        user=question.user,
        category=question.category,
        group=question.group,
        answerable=question.answerable,
        curriculum_stage=question.stage,
        answer_style=style,
        must_include=question.must_include,
        must_include_any=(question.any_of,) if question.any_of else (),
        must_not_include=question.must_not_include,
        split="heldout",
        level=question.level,
        reference_answer=question.answer,
        max_words=None if is_choice else _max_words(question, style),
        choice_labels=question.choice_labels,
        correct_choice=question.answer if is_choice else None,
        normalized_answer=None if is_choice else question.final_answer,
        normalized_answer_required=question.final_answer is not None and not is_choice,
    )


def _own_phrase(question: Question) -> tuple[str, ...]:
    """The one of the accepted phrases that the answer itself has."""
    return tuple(phrase for phrase in question.any_of if holds(question.answer, phrase))[:1]


def _reply(question: Question, style: AnswerStyle) -> str:
    if style == "direct" or question.working is None:
        return question.answer
    return f"{question.working}\nFinal answer: {question.answer}"


def _max_words(question: Question, style: AnswerStyle) -> int:
    if style == "scratchpad" and question.working is not None:
        return SCRATCHPAD_WORDS
    return len(question.answer.split()) + ROOM_WORDS
