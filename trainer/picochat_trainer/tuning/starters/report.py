"""The page beside a starter's rows: what they are made of, and that a person has to read them."""

from collections import Counter
from collections.abc import Mapping, Sequence

from picochat_trainer.tuning.row import Row


def starter_markdown(title: str, rows: Sequence[Row], facts: Mapping[str, str]) -> str:
    """Markdown with the counts per category and what else `facts` says."""
    categories = Counter(row.category or "none" for row in rows)
    return "\n".join(
        [
            f"# {title}",
            "",
            "Made by rules from the given texts. Read the rows and mend them before a score on them means anything.",
            "",
            f"- rows: {len(rows)}",
            *(f"- {name}: {value}" for name, value in facts.items()),
            "",
            "| category | rows |",
            "|---|---:|",
            *(f"| {category} | {count} |" for category, count in sorted(categories.items())),
            "",
        ]
    )
