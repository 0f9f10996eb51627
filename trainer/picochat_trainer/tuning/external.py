"""External benchmarks as eval items: ARC JSONL, MMLU JSONL and CSV, GSM8K JSONL, or a file in our own eval format.

The kind follows from the content, since an uploaded file has no extension. An index as the answer is only taken
where the whole file shows that it counts from 0; a file that may count from 1 is refused, never guessed.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.sources import read_utf8
from picochat_trainer.tuning.eval_items import EvalItem
from picochat_trainer.tuning.row import Problem, build, parsed_row

LETTERS: Final = tuple("ABCDEFGHIJ")
CSV_COLUMNS: Final = 6
MAX_RECORD_LINES: Final = 50  # a quoted cell may span lines; an unclosed quote must not swallow the file
_OPEN_QUOTE: Final = "unexpected end of data"  # what the csv module says where a quote is not closed
_HEADER_NAMES: Final = ("question", "prompt", "input")
_FINAL_ANSWER: Final = re.compile(r"####\s*(\S[^\n]*)\s*$")


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """A question with options, as far as its own line tells."""

    line: int
    question: str
    labels: tuple[str, ...]
    options: tuple[str, ...]
    answer: str | int
    """A label, or an index whose base the whole file decides."""
    category: str


def read_external(path: Path, name: str) -> list[EvalItem]:
    """Items of the external benchmark `name`, with the file's line numbers; raise `bad_row` with the first bad line."""
    text = read_utf8(path, name).removeprefix("\ufeff")
    entries = list(_json_entries(text, name) if text.lstrip()[:1] == "{" else _csv_entries(text, name))
    if not entries:
        raise _bad(name, None, "has no rows: expected JSON objects or CSV rows, one per line")
    return _items(entries, name)


def external_items(rows: Iterable[tuple[int, dict[str, Any]]], name: str) -> list[EvalItem]:
    """Items of numbered rows of the benchmark `name`; raise `bad_row` with the number of the first bad one."""
    return _items([_entry(raw, number, name) for number, raw in rows], name)


def _items(entries: Sequence[_Choice | dict[str, Any]], name: str) -> list[EvalItem]:
    indexed = [entry for entry in entries if isinstance(entry, _Choice) and isinstance(entry.answer, int)]
    _check_base(indexed, name)
    return [_built(_choice_fields(entry) if isinstance(entry, _Choice) else entry, name) for entry in entries]


def _json_entries(text: str, name: str) -> Iterator[_Choice | dict[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            raw = parsed_row(line)
        except (ValueError, RecursionError) as error:
            raise _bad(name, number, f"not JSON ({error})") from error
        if not isinstance(raw, dict):
            raise _bad(name, number, f"expected a JSON object, got {type(raw).__name__}")
        yield _entry(raw, number, name)


def _entry(raw: dict[str, Any], number: int, name: str) -> _Choice | dict[str, Any]:
    try:
        return _reader(raw)(raw, number, name)
    except ValueError as error:
        raise _bad(name, number, str(error)) from error


def _reader(raw: dict[str, Any]) -> Callable[[dict[str, Any], int, str], _Choice | dict[str, Any]]:
    if "user" in raw:
        return lambda row, number, name: {**row, "line": number}
    if "question" in raw and "answerKey" in raw:
        return _arc
    if "question" in raw and "answer" in raw and ("choices" in raw or "A" in raw):
        return _mmlu
    if "question" in raw and isinstance(raw.get("answer"), str) and "####" in raw["answer"]:
        return _gsm8k
    raise ValueError(
        f"no known benchmark has the keys {', '.join(sorted(raw))}; expected question, choices and answerKey (ARC), "
        "question, choices or A to D, and answer (MMLU), question and an answer that ends in '#### result' (GSM8K), "
        "or user with rules (eval)"
    )


def _arc(raw: dict[str, Any], line: int, name: str) -> _Choice:
    choices = raw.get("choices")
    if isinstance(choices, dict):
        labels, options = (
            _texts(choices.get("label"), "choices.label"),
            _texts(choices.get("text"), "choices.text"),
        )
    elif isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        labels = _texts([choice.get("label") for choice in choices], "label")
        options = _texts([choice.get("text") for choice in choices], "text")
    else:
        raise ValueError('choices: expected {"label": [...], "text": [...]}')
    if len(labels) != len(options):
        raise ValueError(f"choices: {len(labels)} labels for {len(options)} texts")
    answer = _text(raw["answerKey"], "answerKey")
    if answer not in labels:
        raise ValueError(f"answerKey {answer!r} is none of the labels {', '.join(labels)}")
    return _Choice(
        line=line,
        question=_text(raw["question"], "question"),
        labels=labels,
        options=options,
        answer=answer,
        category=_category("arc", name),
    )


def _mmlu(raw: dict[str, Any], line: int, name: str) -> _Choice:
    if "choices" in raw:
        options = _texts(raw["choices"], "choices")
    else:
        options = _texts([raw[letter] for letter in LETTERS if letter in raw], "options")
    subject = raw.get("subject")
    return _choice(line, _text(raw["question"], "question"), options, raw["answer"], subject or name)


def _gsm8k(raw: dict[str, Any], line: int, name: str) -> dict[str, Any]:
    found = _FINAL_ANSWER.search(raw["answer"].strip())
    if found is None:
        raise ValueError("answer: expected the result after '####' at its end")
    return {
        "line": line,
        "user": _text(raw["question"], "question"),
        "category": _category("gsm8k", name),
        "split": "external",
        "reference_answer": raw["answer"].strip(),
        "normalized_answer": found[1].strip().lstrip("$"),
        "normalized_answer_required": True,
    }


def _csv_entries(text: str, name: str) -> Iterator[_Choice]:
    """MMLU's columns: question, four options, answer; the first line may name them."""
    first = True
    for number, cells in _csv_records(text, name):
        is_header = first and cells[0].strip().casefold() in _HEADER_NAMES
        first = False
        if is_header:
            continue
        try:
            if len(cells) != CSV_COLUMNS:
                raise ValueError(f"expected question, A, B, C, D and answer; got {len(cells)} columns")
            question, *options, answer = cells
            yield _choice(number, _text(question, "question"), _texts(options, "options"), answer, name)
        except ValueError as error:
            raise _bad(name, number, str(error)) from error


def _csv_records(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of each record. Copies of MMLU hold quotes inside quoted cells that nobody doubled."""
    pending: list[str] = []
    for number, line in enumerate(io.StringIO(text), start=1):
        if not pending and not line.strip():
            continue
        pending.append(line)
        start = number - len(pending) + 1
        try:
            [cells] = csv.reader(["".join(pending)], strict=True)
        except csv.Error as error:
            loose = line.strip().removeprefix('"').split('","')
            loose = [*loose[:-1], *loose[-1].rsplit('",', 1)]
            if len(pending) == 1 and len(loose) == CSV_COLUMNS and "," not in loose[-1]:
                cells = loose
            elif len(pending) < MAX_RECORD_LINES and str(error) == _OPEN_QUOTE:
                continue
            else:
                raise _bad(name, start, f"not CSV ({error})") from error
        yield start, cells
        pending = []
    if pending:
        raise _bad(name, number - len(pending) + 1, f"not CSV ({_OPEN_QUOTE})")


def _choice(line: int, question: str, options: tuple[str, ...], answer: Any, subject: str) -> _Choice:
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"expected 2 to {len(LETTERS)} options, got {len(options)}")
    labels = LETTERS[: len(options)]
    return _Choice(
        line=line,
        question=question,
        labels=labels,
        options=options,
        answer=_answer(answer, labels),
        category=_category("mmlu", subject),
    )


def _answer(value: Any, labels: Sequence[str]) -> str | int:
    if isinstance(value, str) and value.strip().upper() in labels:
        return value.strip().upper()
    digits = str(value).strip()
    if isinstance(value, bool) or not digits.isascii() or not digits.isdigit() or int(digits) > len(labels):
        raise ValueError(
            f"answer: expected a letter of {labels[0]} to {labels[-1]} or an index of 0 to {len(labels) - 1}, "
            f"got {value!r}"
        )
    return int(digits)


def _check_base(entries: Sequence[_Choice], name: str) -> None:
    """Refuse indices that do not certainly count from 0."""
    if not entries:
        return
    past_end = next((entry for entry in entries if entry.answer == len(entry.labels)), None)
    has_zero = any(entry.answer == 0 for entry in entries)
    if past_end is not None and has_zero:
        raise _bad(
            name, past_end.line, f"answer {past_end.answer} is past the last option: other lines count from 0"
        )
    if not has_zero:
        reason = "they seem to count from 1" if past_end else "they may count from 0 or from 1"
        line = (past_end or entries[0]).line
        raise _bad(
            name,
            line,
            f"the answers of the file are indices of which none is 0, so {reason}; write the letters A, B, C, ... "
            "instead of indices",
        )


def _choice_fields(choice: _Choice) -> dict[str, Any]:
    """The prompt has the shape of the generated choice questions, which is what SFT teaches."""
    label = choice.labels[choice.answer] if isinstance(choice.answer, int) else choice.answer
    lines = [f"{label}) {option}" for label, option in zip(choice.labels, choice.options, strict=True)]
    return {
        "line": choice.line,
        "user": "\n".join([choice.question, *lines]),
        "stem": choice.question,
        "category": choice.category,
        "split": "external",
        "reference_answer": choice.options[choice.labels.index(label)],
        "choice_labels": choice.labels,
        "correct_choice": label,
    }


def _built(fields: dict[str, Any], name: str) -> EvalItem:
    item = build(fields, EvalItem)
    if isinstance(item, Problem):
        raise _bad(name, item.line, item.message)
    return item


def _category(family: str, name: str) -> str:
    """Skill groups go by the beginning of a category."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
    return slug if slug.startswith(family) else f"{family}_{slug}"


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field}: expected a text that is not empty, got {value!r}")
    return value.strip()


def _texts(values: Any, field: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{field}: expected a list of texts, got {type(values).__name__}")
    # A number may be an option.
    return tuple(_text(str(value) if isinstance(value, int | float) else value, field) for value in values)


def _bad(name: str, line: int | None, message: str) -> ContractError:
    where = f"external benchmark {name}" + (f", line {line}" if line is not None else "")
    return ContractError(Code.BAD_ROW, f"{where}: {message}", param=name)
