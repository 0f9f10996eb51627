"""Looks at a chat, eval or preference file before anything is trained on it: `picochat data inspect`.

Reads all of the file and names every bad line up to a cap. Linear in the number of rows. No torch.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.sources import read_utf8
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tuning import measures
from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.eval_items import EvalItem
from picochat_trainer.tuning.inspection import Inspection, Kind, LineProblem, Reason, Spread, Status
from picochat_trainer.tuning.preferences import ALIASES, PreferenceRow
from picochat_trainer.tuning.row import Problem, Row, TaskRow, scan

MAX_PROBLEMS: Final = 100
SNIFFED_ROWS: Final = 20
MODELS: Final[dict[Kind, type[Row]]] = {"chat": ChatRow, "eval": EvalItem, "preferences": PreferenceRow}
MIN_ROWS: Final[dict[Kind, int]] = {"chat": 8, "eval": 4, "preferences": 8}
MAX_DUPLICATE_SHARE: Final = 0.25
MIN_ENTROPY: Final = 0.45
MAX_CONSTANT_SHARE: Final = 0.6
MAX_LENGTH_ONLY_ACCURACY: Final = 0.65
MAX_ECHO_SHARE: Final = 0.05


def inspect_file(
    path: Path,
    *,
    kind: Kind | None = None,
    tokenizer: Tokenizer | None = None,
    max_problems: int = MAX_PROBLEMS,
    name: str | None = None,
) -> Inspection:
    """Measure and judge a JSONL file; `kind` None finds it out from the first rows.

    Bad lines are part of the result. Raise `file_unreadable` where the file itself cannot be read.
    """
    name = name or path.name
    kind = kind or sniff(path, name)
    rows: list[Row] = []
    problems: list[LineProblem] = []
    for row in scan(path, name, MODELS[kind]):
        if isinstance(row, Problem):
            problems.append(LineProblem(line=row.line, message=row.message))
        else:
            rows.append(row)
    categories = measures.category_counts(rows)
    measured = Inspection(
        path=str(path),
        kind=kind,
        status="ready",
        reasons=(),
        num_lines=len(rows) + len(problems),
        num_rows=len(rows),
        num_invalid=len(problems),
        problems=tuple(problems[:max_problems]),
        problems_omitted=max(0, len(problems) - max_problems),
        repeats=measures.repeats(rows),
        families=measures.families(rows),
        prompt_words=measures.spread([len(measures.prompt_of(row).split()) for row in rows]),
        categories=categories,
        category_entropy=measures.entropy(categories),
        skills=measures.counted(row.skill for row in rows),
    )
    measured = measured.model_copy(update=_of_kind(rows, tokenizer))
    reasons = tuple(_reasons(measured))
    return measured.model_copy(update={"reasons": reasons, "status": _worst(reasons)})


def sniff(path: Path, name: str) -> Kind:
    """The kind of a file by the keys of its first rows; raise `bad_row` where they fit none."""
    lines = (line for line in read_utf8(path, name).split("\n") if line.strip())
    came = "the file is empty"
    for number, line in enumerate(islice(lines, SNIFFED_ROWS)):
        if not number:
            came = _first_line(line)
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(raw, dict):
            continue
        if raw.keys() & {*ALIASES["chosen"], *ALIASES["rejected"]}:
            return "preferences"
        if raw.get("messages") or raw.get("assistant"):
            return "chat"
        if "user" in raw:
            return "eval"
    raise ContractError(
        Code.BAD_ROW,
        f"{name}: the first rows are neither chat rows (user and assistant, or messages), eval items (user and rules) "
        f"nor preferences (prompt, chosen, rejected): {came}; say which it is with --kind",
        param=name,
    )


def _first_line(line: str) -> str:
    """What the first line of a file of no kind is."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        is_array = line.lstrip().startswith("[")
        return "it is a JSON array; write one object per line" if is_array else "the first is not JSON"
    if isinstance(raw, list):
        return "it is a JSON array; write one object per line"
    keys = f"has the keys {', '.join(map(repr, raw))}" if isinstance(raw, dict) else "is no object"
    return f"the first {keys}"


def _of_kind(rows: Sequence[Row], tokenizer: Tokenizer | None) -> dict[str, object]:
    chat = [row for row in rows if isinstance(row, ChatRow)]
    items = [row for row in rows if isinstance(row, EvalItem)]
    preferences = [row for row in rows if isinstance(row, PreferenceRow)]
    if chat:
        answers = [row.assistant for row in chat]
        found: dict[str, object] = {"shapes": measures.shapes(chat)}
    elif items:
        answers = [item.reference for item in items if item.reference]
        found = {
            "rules": measures.rules(items),
            "splits": measures.counted(item.split for item in items),
            "levels": measures.counted(item.level for item in items),
        }
    else:
        answers = [text for row in preferences for text in (row.chosen, row.rejected)]
        found = {"pairs": measures.pairs(preferences)}
    tasks: list[TaskRow] = [*chat, *items]
    if tasks:
        found |= {
            "answer_styles": measures.counted(_style(task) for task in tasks),
            "curriculum": measures.curriculum(tasks, "sft" if chat else "eval"),
            "curriculum_stages": measures.counted(task.curriculum_stage for task in tasks),
            "unanswerable_share": round(sum(not task.answerable for task in tasks) / len(tasks), 4),
            "constant_answers": measures.constant_answers(tasks),
        }
    found["answer_words"] = measures.spread([len(answer.split()) for answer in answers])
    if tokenizer is not None:
        prompts = [row.prompt_text if isinstance(row, ChatRow) else measures.prompt_of(row) for row in rows]
        found |= {"prompt_tokens": _tokens(prompts, tokenizer), "answer_tokens": _tokens(answers, tokenizer)}
    return found


def _tokens(texts: Sequence[str], tokenizer: Tokenizer) -> Spread | None:
    return measures.spread([len(ids) for ids in tokenizer.encode_batch(texts)])


def _style(row: TaskRow) -> str | None:
    """As stated, else as the answer shows."""
    if row.answer_style is not None or not isinstance(row, ChatRow):
        return row.answer_style
    return "scratchpad" if "\n" in row.assistant and "final answer" in row.assistant.casefold() else "direct"


def _reasons(found: Inspection) -> list[Reason]:
    if found.num_rows == 0:
        message = "the file has no usable row: expected one JSON object per line"
        return [Reason(status="blocked", check="rows", message=message)]
    reasons: list[Reason] = []

    def add(check: str, message: str, status: Status = "caution") -> None:
        reasons.append(Reason(status=status, check=check, message=message))

    if found.num_invalid:
        first = found.problems[0] if found.problems else None
        where = f", the first is line {first.line}: {first.message}" if first else ""
        add("invalid_rows", f"{found.num_invalid} lines are no rows{where}; repair or remove them", "blocked")
    least = MIN_ROWS[found.kind]
    if found.num_rows < least:
        add("rows", f"{found.num_rows} rows; fewer than {least} say little, give more")
    assert found.repeats is not None
    if found.repeats.exact_share > MAX_DUPLICATE_SHARE:
        add("duplicate_prompts", f"{found.repeats.exact_share:.0%} of the prompts came before; remove them")
    if found.kind == "eval" and found.unanswerable_share == 0:
        add(
            "unanswerable",
            "no item is unanswerable, so nothing shows whether the model invents answers; add some",
        )
    if (
        found.kind != "preferences"
        and len(found.categories) > 1
        and (found.category_entropy or 0) < MIN_ENTROPY
    ):
        largest = next(iter(found.categories))
        add(
            "category_balance",
            f"category {largest} outweighs the others (entropy {found.category_entropy:.2f})",
        )
    for constant in found.constant_answers:
        if constant.share > MAX_CONSTANT_SHARE:
            add(
                "constant_answer",
                f"{constant.share:.0%} of category {constant.category} have the answer {constant.answer!r}; a model "
                "that says only this passes them, vary the answers",
            )
    return reasons + _pair_reasons(found)


def _pair_reasons(found: Inspection) -> list[Reason]:
    pairs = found.pairs
    if pairs is None:
        return []
    messages: dict[str, str] = {}
    if pairs.length_only_accuracy > MAX_LENGTH_ONLY_ACCURACY:
        messages["length_bias"] = (
            f"length alone tells chosen from rejected in {pairs.length_only_accuracy:.0%} of the pairs, so DPO would "
            "learn length; balance it"
        )
    if pairs.rejected_echo_share > MAX_ECHO_SHARE:
        messages["echo"] = (
            f"{pairs.rejected_echo_share:.0%} of the rejected answers repeat the prompt, so DPO would learn not to "
            "echo and no more; reject answers that are wrong in content"
        )
    if pairs.num_reversed:
        messages["reversed"] = f"{pairs.num_reversed} pairs contradict another pair; remove one of each"
    return [Reason(status="caution", check=check, message=text) for check, text in messages.items()]


def _worst(reasons: Sequence[Reason]) -> Status:
    found = {reason.status for reason in reasons}
    return "blocked" if "blocked" in found else "caution" if "caution" in found else "ready"
