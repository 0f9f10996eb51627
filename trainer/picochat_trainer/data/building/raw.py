"""Documents on their way to a worker process, which imports this and not the readers of sources."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class RawDocuments:
    """Documents as they came, column by column; a file that cannot be read is a row with a reason and no text."""

    paths: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    licenses: list[str | None] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    """Number of the file, counted over all sources."""
    reasons: list[str | None] = field(default_factory=list)
