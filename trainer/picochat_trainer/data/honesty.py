"""Does an eval measure anything new? Looks for eval prompts in the SFT rows, in the corpus, and twice in the eval.

Compares normal forms (see `normalize`), so case, spacing, punctuation and Unicode variants hide nothing. Linear in
the size of the files. Not here: near-duplicates, answers, n-gram overlap.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.normalize import normal_form
from picochat_trainer.data.phrases import PhraseIndex, words_of_file
from picochat_trainer.data.readiness import Status
from picochat_trainer.tuning.rows import ChatRow, EvalItem, Row, read_chat, read_eval

R = TypeVar("R", bound=Row)
MIN_CORPUS_PROMPT: Final = 24  # characters in normal form; shorter prompts turn up in any large text
MAX_FINDINGS: Final = 1_000  # listed one by one; the counts cover all


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Two places that hold the same prompt."""

    kind: str
    """exact_sft_prompt_leak, eval_prompt_in_corpus or duplicate_eval_prompt."""
    eval_line: int
    eval_prompt: str
    other_source: str
    """chat, corpus or eval: where `other_line` is."""
    other_line: int
    other_text: str
    occurrences: int
    """How often it was found there."""


@dataclass(frozen=True, kw_only=True)
class Honesty:
    """Content of the honesty report, without the digests of the files."""

    num_sft: int
    num_eval: int
    num_eval_checked_in_corpus: int
    """Eval prompts that are long enough to be looked for in the corpus."""
    exact_prompt_leaks: int
    corpus_prompt_hits: int
    duplicate_eval_prompts: int
    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        if self.exact_prompt_leaks:
            return Status.BLOCKED
        return Status.CAUTION if self.corpus_prompt_hits or self.duplicate_eval_prompts else Status.READY


def check_honesty(chat: Sequence[ChatRow], items: Sequence[EvalItem], corpus: Path) -> Honesty:
    """Compare the three; each finding names both places."""
    leaks = _sft_leaks(chat, items)
    hits, num_checked = _corpus_hits(items, corpus)
    repeats = _repeats(items)
    return Honesty(
        num_sft=len(chat),
        num_eval=len(items),
        num_eval_checked_in_corpus=num_checked,
        exact_prompt_leaks=len(leaks),
        corpus_prompt_hits=len(hits),
        duplicate_eval_prompts=len(repeats),
        findings=(*leaks, *hits, *repeats),
    )


def honesty_report(*, corpus: Path, chat: Path, eval: Path) -> dict[str, Any]:
    """Read the three files and return the content of `honesty_report.json`."""
    honesty = check_honesty(read_chat(chat), read_eval(eval), corpus)
    listed = honesty.findings[:MAX_FINDINGS]
    return {
        "status": honesty.status,
        "summary": _summary(honesty),
        "corpus_sha256": file_sha256(corpus),
        "chat_sha256": file_sha256(chat),
        "eval_sha256": file_sha256(eval),
        "num_sft": honesty.num_sft,
        "num_eval": honesty.num_eval,
        "num_eval_checked_in_corpus": honesty.num_eval_checked_in_corpus,
        "exact_prompt_leaks": honesty.exact_prompt_leaks,
        "corpus_prompt_hits": honesty.corpus_prompt_hits,
        "duplicate_eval_prompts": honesty.duplicate_eval_prompts,
        "findings": [asdict(finding) for finding in listed],
        "findings_omitted": len(honesty.findings) - len(listed),
    }


def _sft_leaks(chat: Sequence[ChatRow], items: Sequence[EvalItem]) -> list[Finding]:
    rows = _by_prompt(chat)
    found = [(item, rows[key]) for item in items if (key := _key(item)) in rows]
    return [
        _finding("exact_sft_prompt_leak", item, "chat", same[0].line, same[0].user, len(same))
        for item, same in found
    ]


def _repeats(items: Sequence[EvalItem]) -> list[Finding]:
    return [
        _finding("duplicate_eval_prompt", item, "eval", same[0].line, same[0].user, len(same) - 1)
        for same in _by_prompt(items).values()
        for item in same[1:]
    ]


def _corpus_hits(items: Sequence[EvalItem], corpus: Path) -> tuple[list[Finding], int]:
    """Findings, and how many items were long enough to be looked for."""
    wanted = {key: same for key, same in _by_prompt(items).items() if len(key) >= MIN_CORPUS_PROMPT}
    index = PhraseIndex([key.split(" ") for key in wanted])
    keys = list(wanted)
    first_line: dict[str, int] = {}
    counts: dict[str, int] = defaultdict(int)
    for phrase, line in index.matches(words_of_file(corpus)):
        first_line.setdefault(keys[phrase], line)
        counts[keys[phrase]] += 1
    texts = _lines(corpus, set(first_line.values()))
    findings = [
        _finding("eval_prompt_in_corpus", item, "corpus", line, texts[line], counts[key])
        for key, line in first_line.items()
        for item in wanted[key]
    ]
    return findings, sum(len(same) for same in wanted.values())


def _lines(corpus: Path, numbers: set[int]) -> dict[int, str]:
    if not numbers:
        return {}
    with corpus.open(encoding="utf-8", newline="\n") as file:
        return {number: line.strip()[:200] for number, line in enumerate(file, start=1) if number in numbers}


def _by_prompt(rows: Sequence[R]) -> dict[str, list[R]]:
    found: dict[str, list[R]] = {}
    for row in rows:
        found.setdefault(_key(row), []).append(row)
    return found


def _key(row: Row) -> str:
    # A prompt of signs only has no words; its own text then stands for it.
    return normal_form(row.user) or row.user.strip()


def _finding(kind: str, item: EvalItem, source: str, line: int, text: str, occurrences: int) -> Finding:
    return Finding(
        kind=kind,
        eval_line=item.line,
        eval_prompt=item.user,
        other_source=source,
        other_line=line,
        other_text=text,
        occurrences=occurrences,
    )


def _summary(honesty: Honesty) -> str:
    if honesty.status is Status.READY:
        return f"none of {honesty.num_eval} eval prompts is an SFT prompt, in the corpus, or repeated"
    return (
        f"of {honesty.num_eval} eval prompts {honesty.exact_prompt_leaks} are SFT prompts, "
        f"{honesty.corpus_prompt_hits} are in the corpus, {honesty.duplicate_eval_prompts} are repeated"
    )
