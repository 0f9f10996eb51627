"""A pack of defensive security questions: seed rows from a folder, and rows of an instruction dataset where asked for.

Every eval item keeps or gets rules. A row of the dataset becomes one only where its answer names technical terms that
its prompt does not have: a reply must name one of them, which is a weak rule but one that can fail. No prompt is on both
sides. The corpus is text of its own, not the SFT rows.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.imports.hub import DatasetRequest, open_dataset
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.scoring.matching import holds
from picochat_trainer.tuning.packs.hub_rows import R, row_characters
from picochat_trainer.tuning.preferences import PreferenceRow, read_preferences
from picochat_trainer.tuning.row import Problem, build, numbered
from picochat_trainer.tuning.rows import ChatRow, EvalItem, read_chat, read_eval
from picochat_trainer.tuning.starters.preference import preference_starter

BUNDLED_SEEDS: Final = Path(__file__).with_name("security_seeds")
BUNDLED_LICENSE: Final = "MIT"
TRENDYOL: Final = "Trendyol/Trendyol-Cybersecurity-Instruction-Tuning-Dataset"
CATEGORY: Final = "security_instruction"
CHAT: Final = "chat.jsonl"
EVAL: Final = "eval.jsonl"
PREFERENCES: Final = "preferences.jsonl"
CORPUS: Final = "corpus"
MAX_EVAL_SHARE: Final = 0.2
"""Of the dataset's rows, from its end."""
MIN_TERMS: Final = 2
MAX_TERMS: Final = 8
_TERM: Final = re.compile(r"\b(?:CVE-\d{4}-\d{4,}|[A-Z][A-Za-z]*[A-Z0-9][A-Za-z0-9]*)\b")


@dataclass(frozen=True, kw_only=True)
class InstructionSource:
    """An instruction dataset with the columns user and assistant, and perhaps system."""

    dataset: str
    split: str
    revision: str | None
    max_rows: int
    max_characters: int


@dataclass(kw_only=True)
class SecurityRows:
    """Rows of the three files, and what became of everything that was read."""

    chat: list[ChatRow] = field(default_factory=list)
    eval: list[EvalItem] = field(default_factory=list)
    preferences: list[PreferenceRow] = field(default_factory=list)
    num_seeds: dict[str, int] = field(default_factory=dict)
    imported: dict[str, Any] | None = None
    """Dataset, commit, licence and rows of the import."""
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def security_rows(
    seed_dir: Path,
    source: InstructionSource | None,
    *,
    num_eval: int,
    num_preferences: int,
    seed: int,
) -> SecurityRows:
    """Read seeds and dataset into disjoint rows with new line numbers; raise ContractError where a file is missing or has a bad row."""
    made = SecurityRows()
    seeds = _read_seeds(seed_dir)
    made.num_seeds = {
        "chat": len(seeds.chat),
        "eval": len(seeds.eval),
        "preferences": len(seeds.preferences),
    }
    rows = _instructions(source, made) if source else []
    made.eval = _unique_eval(seeds.eval, made.left_out)[:num_eval]
    used = _add_eval(rows, num_eval, made)
    made.eval = numbered(made.eval)
    asked = {normal_form(item.user) for item in made.eval}
    unused = [row for row in rows if row.line not in used]
    made.chat = numbered(_disjoint([*seeds.chat, *unused], asked, made))
    given = [row for row in seeds.preferences if normal_form(row.prompt) not in asked]
    made.left_out["preferences whose prompt is an eval prompt"] += len(seeds.preferences) - len(given)
    made.preferences = numbered(_topped_up(given[:num_preferences], num_preferences, seed, made))
    for name, got, wanted in (
        ("eval items", len(made.eval), num_eval),
        ("preference pairs", len(made.preferences), num_preferences),
    ):
        if got < wanted:
            made.notes.append(f"{got} of {wanted} {name}: there are no more")
    return made


def key_terms(answer: str, prompt: str) -> tuple[str, ...]:
    """Technical terms (TLS, FIDO2, CVE numbers) that the answer has at least twice and the prompt does not."""
    counts = Counter(_TERM.findall(answer))
    found = (term for term, count in counts.most_common() if count >= 2 and not holds(prompt, term))
    return tuple(islice(found, MAX_TERMS))


@dataclass(frozen=True, kw_only=True)
class _Seeds:
    chat: list[ChatRow]
    eval: list[EvalItem]
    preferences: list[PreferenceRow]


def _read_seeds(folder: Path) -> _Seeds:
    for name in (CHAT, EVAL, PREFERENCES):
        if not (folder / name).is_file():
            raise ContractError(
                Code.CORPUS_MISSING,
                f"{folder / name} is not there; a seed folder holds {CHAT}, {EVAL} and {PREFERENCES}",
                param="--seed-dir",
            )
    is_bundled = folder == BUNDLED_SEEDS
    origin: Mapping[str, str | None] = {
        "provenance": "picochat security seeds" if is_bundled else f"seeds {folder.name}",
        "license": BUNDLED_LICENSE if is_bundled else None,
    }
    return _Seeds(
        chat=[_from(row, origin) for row in read_chat(folder / CHAT)],
        eval=[_from(item, origin) for item in read_eval(folder / EVAL)],
        preferences=read_preferences(folder / PREFERENCES),
    )


def _from(row: R, origin: Mapping[str, str | None]) -> R:
    """A row keeps what it says itself about its origin."""
    unknown = {key: value for key, value in origin.items() if getattr(row, key) is None}
    return row.model_copy(update=unknown)


def _instructions(source: InstructionSource, made: SecurityRows) -> list[ChatRow]:
    """Rows of the dataset that are complete and within the budget, numbered from 1."""
    opened = open_dataset(
        DatasetRequest(dataset=source.dataset, split=source.split, revision=source.revision)
    )
    place = f"hf:{source.dataset}@{opened.revision or 'local'}/{source.split}"
    rows: list[ChatRow] = []
    try:
        with opened.after(0) as stream:
            raws = list(islice(stream, source.max_rows))
    except (OSError, ValueError, RuntimeError) as error:
        raise ContractError(
            Code.CORPUS_MISSING,
            f"reading the dataset {source.dataset!r} failed: {error}",
            param="--trendyol-dataset",
        ) from error
    for number, raw in enumerate(raws, start=1):
        values = {name: raw[name] for name in ("system", "user", "assistant") if raw.get(name)}
        origin = {"provenance": f"{place}#{number - 1}", "license": opened.license}
        row = build({**values, **origin, "category": CATEGORY, "line": number}, ChatRow)
        if isinstance(row, Problem):
            made.left_out["dataset rows without user or assistant"] += 1
        elif row_characters(row) > source.max_characters:
            made.left_out["dataset rows longer than the budget"] += 1
        else:
            rows.append(row)
    made.imported = {
        "dataset": source.dataset,
        "split": source.split,
        "revision": opened.revision,
        "license": opened.license,
        "rows_read": len(raws),
        "rows_usable": len(rows),
    }
    return rows


def _unique_eval(items: list[EvalItem], left_out: Counter[str]) -> list[EvalItem]:
    kept = list({normal_form(item.user): item for item in reversed(items)}.values())[::-1]
    left_out["eval items whose prompt came before"] += len(items) - len(kept)
    return kept


def _add_eval(rows: list[ChatRow], num_eval: int, made: SecurityRows) -> set[int]:
    """Make items of the last rows that can be judged; return the numbers of the rows that are used up."""
    asked = {normal_form(item.user) for item in made.eval}
    most = min(num_eval - len(made.eval), int(len(rows) * MAX_EVAL_SHARE))
    used: set[int] = set()
    for row in reversed(rows):
        if len(used) >= most:
            break
        terms = key_terms(row.assistant, row.prompt_text)
        key = normal_form(row.user)
        if len(terms) < MIN_TERMS or key in asked:
            continue
        asked.add(key)
        used.add(row.line)
        made.eval.append(
            EvalItem(
                user=row.user,
                system=row.system,
                category=CATEGORY,
                split="heldout",
                level="domain",
                must_include_any=(terms,),
                reference_answer=row.assistant,
                provenance=row.provenance,
                license=row.license,
            )
        )
    return used


def _disjoint(rows: list[ChatRow], asked: set[str], made: SecurityRows) -> Iterator[ChatRow]:
    """Rows whose prompt is neither an eval prompt nor that of an earlier row."""
    seen: set[str] = set()
    for row in rows:
        # The system text does not make a question another one.
        key = normal_form(row.user)
        if key in asked:
            made.left_out["chat rows whose prompt is an eval prompt"] += 1
        elif key in seen:
            made.left_out["chat rows whose prompt came before"] += 1
        else:
            seen.add(key)
            yield row


def _topped_up(given: list[PreferenceRow], wanted: int, seed: int, made: SecurityRows) -> list[PreferenceRow]:
    """Pairs made of chat rows, with answers that are wrong in content, fill up what the seeds lack."""
    missing = wanted - len(given)
    if missing <= 0:
        return given
    prompts = {normal_form(row.prompt) for row in given}
    rows = [row for row in made.chat if normal_form(row.user) not in prompts]
    return [*given, *preference_starter(rows, max_items=missing, seed=seed).rows]
