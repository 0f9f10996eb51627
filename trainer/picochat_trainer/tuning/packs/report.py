"""The page beside generated rows: what they are made of, where they come from, and how they were judged."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from picochat_trainer.tuning.packs.verdict import Verdict
from picochat_trainer.tuning.row import TaskRow
from picochat_trainer.tuning.rows import ChatRow, EvalItem

NONE = "none"


def pack_markdown(
    title: str,
    chat: Sequence[ChatRow],
    items: Sequence[EvalItem],
    *,
    facts: Mapping[str, object],
    notes: Sequence[str],
    verdict: Verdict,
    weights: Mapping[str, float] | None = None,
) -> str:
    """Markdown with counts per component (with `weights`), category and origin, and the verdict."""
    sides: tuple[Sequence[TaskRow], Sequence[TaskRow]] = (chat, items)
    components: list[str] = []
    if weights is not None:
        components = [
            "## Components",
            "",
            "| component | weight | SFT rows | eval items |",
            "|---|---:|---:|---:|",
            *(
                f"| {name} | {weight:.2f} | {_count(chat, name)} | {_count(items, name)} |"
                for name, weight in weights.items()
            ),
            "",
        ]
    return "\n".join(
        [
            f"# {title}",
            "",
            "Generated and imported rows are scaffolding: read them before a score on them means anything.",
            "",
            *(f"- {name}: {value}" for name, value in facts.items()),
            *(f"- note: {note}" for note in notes),
            "",
            "## Verdict",
            "",
            *(f"- {line}" for line in verdict.lines),
            "",
            "| pair | risk | items | contaminated |",
            "|---|---|---:|---:|",
            *(
                f"| {pair['pair']} | {pair['risk']} | {pair['num_targets']} | {pair['num_contaminated']} |"
                for pair in verdict.honesty["contamination_matrix"]["pairs"]
            ),
            "",
            *components,
            *_table("Categories", "category", [[row.category for row in side] for side in sides]),
            *_table("Origins", "origin | licence", [[_origin(row) for row in side] for side in sides]),
        ]
    )


def _count(rows: Sequence[TaskRow], component: str) -> int:
    return sum(row.mixture_component == component for row in rows)


def _origin(row: TaskRow) -> str:
    """Without the number of the row."""
    return f"{(row.provenance or NONE).partition('#')[0]} | {row.license or 'not stated'}"


def _table(title: str, column: str, names: Sequence[Iterable[str | None]]) -> Iterator[str]:
    counts = [Counter(name or NONE for name in side) for side in names]
    yield from (f"## {title}", "", f"| {column} | SFT rows | eval items |")
    yield "|---" * (1 + column.count("|")) + "|---:|---:|"
    for name in sorted({*counts[0], *counts[1]}):
        yield f"| {name} | {counts[0][name]} | {counts[1][name]} |"
    yield ""
