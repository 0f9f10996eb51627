"""Small data files of one run, written by the row, and the reports about them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.data_configs import HonestyConfig
from picochat_trainer.honesty.data_files import DataFiles, read_data_files
from picochat_trainer.honesty.report import data_report

CONFIG = HonestyConfig()
CLEAN_CORPUS = (
    "The river rises in the hills and runs slowly to the sea.",
    "Bread needs flour, water, salt and time.",
)
CLEAN_CHAT = (
    ("Where does the river rise in spring?", "In the hills."),
    ("What does good bread need?", "Time."),
)
Lines = Sequence[dict[str, Any]]


def put_lines(path: Path, rows: Lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def put_corpus(folder: Path, documents: Sequence[str]) -> None:
    """corpus.txt with a manifest that says where its documents are."""
    text, spans = "", []
    for number, document in enumerate(documents):
        start = len(text)
        text += document
        spans.append(
            {
                "document_id": f"doc{number}",
                "path": f"file{number}.txt",
                "char_start": start,
                "char_end": len(text),
            }
        )
        text += "\n\n"
    (folder / layout.CORPUS).write_text(text, encoding="utf-8")
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": [],
        "stats": {"num_documents": len(spans)},
        "documents": spans,
    }
    (folder / layout.CORPUS_MANIFEST).write_text(json.dumps(manifest))


WriteData = Callable[..., DataFiles]


@pytest.fixture
def write_data(tmp_path: Path) -> WriteData:
    """Write the data files of a run and read them back."""

    def write(
        *,
        items: Sequence[str],
        corpus: Sequence[str] = CLEAN_CORPUS,
        chat: Sequence[tuple[str, str]] = CLEAN_CHAT,
        preferences: Lines = (),
        external: dict[str, Lines] | None = None,
    ) -> DataFiles:
        put_corpus(tmp_path, corpus)
        put_lines(tmp_path / layout.CHAT, [{"user": user, "assistant": reply} for user, reply in chat])
        put_lines(tmp_path / layout.EVAL, [{"user": user, "must_include": ["x"]} for user in items])
        if preferences:
            put_lines(tmp_path / layout.PREFERENCES, preferences)
        for name, rows in (external or {}).items():
            put_lines(tmp_path / layout.EXTERNAL_DIR / f"{name}.jsonl", rows)
        return read_data_files(tmp_path.joinpath)

    return write


@pytest.fixture
def report_on(write_data: WriteData) -> Callable[..., dict[str, Any]]:
    def report(**given: Any) -> dict[str, Any]:
        return data_report(write_data(**given), CONFIG, workers=1)

    return report
