"""Honesty and audit reports, and the eval's scores without the items that they mark, as pages show them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from picochat_contract import layout
from picochat_contract.evidence import Score
from pydantic import Field

from picochat_server.pages.stored import Files, Shown

Status = Literal["ready", "caution", "blocked"]
Risk = Literal["high", "medium", "low", "clean", "not_checked"]
RISKS: tuple[Risk, ...] = ("high", "medium", "not_checked", "low", "clean")
"""In the order in which a reader wants them."""
PAGE_SIZE = 25  # findings
SHOWN_LINES = 30  # of the eval items that a measure marks
MAX_MEASURES = 30
SHOWN_PAIRS = 30  # that findings can be filtered by
MAX_PAIR = 100  # characters of a pair's name in an address
VARIANTS = ("prompt", "prompt_answer")


class Head(Shown):
    """What a report comes to."""

    status: Status
    summary: str


class Place(Shown):
    """Where an item or a finding stands."""

    source: str
    id: str
    path: str | None = None
    line: int | None = None
    span: list[int] = []


class Finding(Shown):
    kind: str
    pair: str
    measure: str
    variant: str = "prompt"
    value: float
    target: Place
    target_text: str
    place: Place
    span_text: str
    occurrences: int = 1
    message: str
    fix: str

    @property
    def target_parts(self) -> tuple[str, str, str]:
        """The item's text before, in and after what was found; all of it is `before` where the place is not in it."""
        start, end = self.target.span if len(self.target.span) == 2 else (0, 0)
        if not 0 <= start < end <= len(self.target_text):
            return self.target_text, "", ""
        return self.target_text[:start], self.target_text[start:end], self.target_text[end:]


class Measure(Shown):
    threshold: float
    source: str
    description: str


class Pair(Shown):
    """One row of the contamination matrix."""

    pair: str
    reference: str = ""
    target: str = ""
    num_targets: int
    num_not_searchable: int = 0
    risk: Risk
    reason: str | None = None
    num_contaminated: int
    longest_match: float | None = None
    measures: dict[str, dict[str, int]] = {}
    """Items that a measure marks, on the prompt alone and on prompt plus answer."""

    def marked(self, measure: str) -> tuple[int | None, int | None]:
        counts = self.measures.get(measure, {})
        return counts.get(VARIANTS[0]), counts.get(VARIANTS[1])


class Matrix(Shown):
    pairs: Annotated[list[Pair], Field(max_length=200)]

    @property
    def by_risk(self) -> list[Pair]:
        return sorted(self.pairs, key=lambda pair: RISKS.index(pair.risk))


class Compared(Shown):
    """What both reports say. Only what a gate needs must be there."""

    status: Status | None = None
    summary: str | None = None
    corpus_sha256: str
    chat_sha256: str
    eval_sha256: str
    preferences_sha256: str | None = None
    external_sha256: Annotated[dict[str, str], Field(max_length=200)] = {}
    num_eval: int
    measures: Annotated[dict[str, Measure], Field(max_length=MAX_MEASURES)] = {}
    contamination_matrix: Matrix
    dirty_eval_lines: Annotated[dict[str, list[int]], Field(max_length=MAX_MEASURES)] = {}
    findings: list[Finding] = []
    findings_omitted: int = 0


class HonestyReport(Compared):
    """`honesty/honesty_report.json`: data against data."""

    num_sft: int | None = None
    num_preferences: int | None = None
    num_documents: int | None = None
    exact_prompt_leaks: int
    preference_prompt_leaks: int
    near_prompt_leaks: int
    corpus_prompt_hits: int
    duplicate_eval_prompts: int


class AuditReport(Compared):
    """`honesty/audit_report.json`: what was really trained on, and what the model wrote."""

    trained_documents: int
    held_out_documents: int | None = None
    trained_rows: int
    trained_prompt_hits: int
    copied: Score
    copied_words: int | None = None


class Subset(Shown):
    """The eval's score without the items that one measure marks, and on those alone."""

    num_dirty: int
    clean: Score
    dirty: Score
    estimated_performance_gain: float | None


class EvalScores(Shown):
    """The parts of `eval/eval_report.json` that belong to honesty."""

    overall: Score
    clean: Score
    eval_sha256: str | None = None
    clean_subsets: dict[str, Subset] = {}


@dataclass(frozen=True, kw_only=True)
class Unclean:
    """What one measure marks in the eval, and what that is worth."""

    measure: str
    num_marked: int
    lines: tuple[int, ...]
    """The first ones."""
    subset: Subset | None

    @property
    def lines_left_out(self) -> int:
        return self.num_marked - len(self.lines)


@dataclass(frozen=True, kw_only=True)
class ComparedFile:
    """A file that the report is about; `is_runs` tells whether the run still has these bytes there."""

    path: str
    sha256: str
    num: int | None
    """None where the report does not say."""
    unit: str
    is_runs: bool


@dataclass(frozen=True, kw_only=True)
class FindingsPage:
    """Some of the findings."""

    shown: tuple[Finding, ...]
    first: int
    """Number of the first one shown, from 1."""
    num_matching: int
    """Findings of the report that the filter leaves."""
    omitted: int
    """Further ones that the report counts and does not list; of all pairs."""
    number: int
    num_pages: int
    pair: str | None
    pairs: tuple[tuple[str, int], ...]
    """Findings listed of each pair, of the first pairs."""

    @property
    def last(self) -> int:
        return self.first + len(self.shown) - 1


def findings_page(report: Compared, pair: str | None, number: int) -> FindingsPage:
    """Page `number`, from 1, of the findings of one pair or of all; a number behind the last page means the last."""
    pairs = Counter(finding.pair for finding in report.findings)
    pair = pair if pair in pairs else None
    matching = [finding for finding in report.findings if pair is None or finding.pair == pair]
    num_pages = max(1, -(-len(matching) // PAGE_SIZE))
    number = min(number, num_pages)
    start = (number - 1) * PAGE_SIZE
    return FindingsPage(
        shown=tuple(matching[start : start + PAGE_SIZE]),
        first=start + 1,
        num_matching=len(matching),
        omitted=report.findings_omitted,
        number=number,
        num_pages=num_pages,
        pair=pair,
        pairs=tuple((name, num) for name, num in pairs.items() if len(name) <= MAX_PAIR)[:SHOWN_PAIRS],
    )


def unclean(report: Compared, scores: EvalScores | None) -> tuple[Unclean, ...]:
    """By measure, in the report's order. Scores count only where they are about the same eval file."""
    subsets: Mapping[str, Subset] = scores.clean_subsets if scores and is_about(report, scores) else {}
    return tuple(
        Unclean(
            measure=name,
            num_marked=len(lines),
            lines=tuple(lines[:SHOWN_LINES]),
            subset=subsets.get(name),
        )
        for name, lines in report.dirty_eval_lines.items()
    )


def is_about(report: Compared, scores: EvalScores) -> bool:
    return scores.eval_sha256 == report.eval_sha256


def compared_files(report: Compared, files: Files) -> tuple[ComparedFile, ...]:
    documents = report.num_documents if isinstance(report, HonestyReport) else None
    rows = report.num_sft if isinstance(report, HonestyReport) else None
    preferences = report.num_preferences if isinstance(report, HonestyReport) else None
    named: list[tuple[str, str | None, int | None, str]] = [
        (layout.CORPUS_MANIFEST, report.corpus_sha256, documents, "documents"),
        (layout.CHAT, report.chat_sha256, rows, "SFT rows"),
        (layout.EVAL, report.eval_sha256, report.num_eval, "eval items"),
        (layout.PREFERENCES, report.preferences_sha256, preferences, "preferences"),
    ]
    for name, digest in report.external_sha256.items():
        named.append((f"{layout.EXTERNAL_DIR}/{name}.jsonl", digest, None, ""))
    return tuple(
        ComparedFile(
            path=path,
            sha256=sha256,
            num=num,
            unit=unit,
            is_runs=path in files and files[path].sha256 == sha256,
        )
        for path, sha256, num, unit in named
        if sha256 is not None
    )
