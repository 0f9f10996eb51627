"""What an import has finished, one line per shard, so that an interrupted one goes on at the exact row.

A line is appended after its shard is in place; a torn last line, which a kill can leave, is dropped. The first line
says what is imported: a journal of something else is refused.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from picochat_contract.errors import Code, ContractError

NAME: Final = ".import.jsonl"  # hidden, so that a folder source passes it over


@dataclass(frozen=True, kw_only=True)
class RowRecord:
    """A row and what became of it."""

    row: int
    """0-based place in the split."""
    reason: str
    """written, missing_text_column, text_column_not_string, below_min_chars or invalid_unicode."""
    num_characters: int


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """A finished stretch of rows, and the shard that holds its documents."""

    path: str | None
    """File name in the documents folder; None where the stretch had no document."""
    num_documents: int
    num_characters: int
    sha256: str | None
    rows_seen: int
    """Rows of the split up to the end of this stretch."""
    skipped: dict[str, int]
    """Rows of this stretch that were not written, by reason."""
    rows: tuple[RowRecord, ...] = ()
    """Of the rows that the report lists."""
    position: Any = field(default=None, compare=False)
    """Of the dataset's reader after this stretch; the same place can be said in several ways."""


@dataclass
class Journal:
    path: Path
    shards: list[ShardRecord] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, identity: dict[str, Any], *, resume: bool) -> "Journal":
        """The journal in `folder`: that of an unfinished import of the same thing, else a new one."""
        path = folder / NAME
        lines = _whole_lines(path) if resume and path.exists() else []
        if lines:
            return cls(path, _shards(lines, identity, path))
        path.unlink(missing_ok=True)
        journal = cls(path)
        journal._append({"identity": identity})
        return journal

    @property
    def rows_seen(self) -> int:
        return self.shards[-1].rows_seen if self.shards else 0

    @property
    def position(self) -> Any:
        return self.shards[-1].position if self.shards else None

    def add(self, shard: ShardRecord) -> None:
        self._append(asdict(shard))
        self.shards.append(shard)

    def close(self) -> None:
        """The import is complete; the next one starts anew."""
        self.path.unlink(missing_ok=True)

    def _append(self, value: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(value) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(path: Path) -> list[str]:
    """The lines that were written to their end; what follows them is cut off."""
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    if whole != raw:
        os.truncate(path, len(whole))
    return whole.decode("utf-8", errors="replace").splitlines()


def _shards(lines: list[str], identity: dict[str, Any], path: Path) -> list[ShardRecord]:
    try:
        found = json.loads(lines[0])["identity"]
        shards = [_shard(json.loads(line)) for line in lines[1:]]
        changed = [key for key in identity if found.get(key) != identity[key]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{path} is not the journal of an import ({error!r}); start again with --no-resume",
            param="--resume",
        ) from error
    if changed:
        raise ContractError(
            Code.INPUT_CHANGED,
            f"{path.parent} holds an unfinished import with another {', '.join(changed)} "
            f"({', '.join(f'{key} {found.get(key)!r}' for key in changed)}); go on with that, or start again with "
            "--no-resume",
            param="--resume",
        )
    missing = next(
        (shard.path for shard in shards if shard.path and not (path.parent / shard.path).is_file()), None
    )
    if missing is not None:
        raise ContractError(
            Code.INPUT_CHANGED,
            f"{path.parent / missing} is gone, which the unfinished import there had written; start again with "
            "--no-resume",
            param="--resume",
        )
    return shards


def _shard(raw: dict[str, Any]) -> ShardRecord:
    return ShardRecord(**{**raw, "rows": tuple(RowRecord(**row) for row in raw["rows"])})
