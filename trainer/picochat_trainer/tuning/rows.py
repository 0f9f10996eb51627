"""Chat JSONL (SFT rows) and eval JSONL: reading them with errors that name the line, and writing them."""

from pathlib import Path

from picochat_trainer.tuning.chat_rows import ChatRow
from picochat_trainer.tuning.eval_items import EvalItem
from picochat_trainer.tuning.row import Row, read, to_jsonl

__all__ = ["ChatRow", "EvalItem", "Row", "read_chat", "read_eval", "to_jsonl"]


def read_chat(path: Path, name: str | None = None) -> list[ChatRow]:
    """Rows of a chat JSONL file; raise `bad_row` with the line number."""
    return read(path, name or path.name, ChatRow)


def read_eval(path: Path, name: str | None = None) -> list[EvalItem]:
    """Items of an eval JSONL file; raise `bad_row` with the line number."""
    return read(path, name or path.name, EvalItem)
