"""Everything that a dataset stage made, read for comparison, with the digests that evidence is bound to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat_contract import layout

from picochat_trainer.atomic import file_sha256
from picochat_trainer.data.corpus_store import CorpusDocuments, CorpusStore
from picochat_trainer.tuning.preferences import PreferenceRow, read_preferences
from picochat_trainer.tuning.rows import ChatRow, EvalItem, read_chat, read_eval

Locate = Callable[[str], Path]


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """Corpus, rows and items of one run."""

    corpus: CorpusDocuments
    chat: tuple[ChatRow, ...]
    eval: tuple[EvalItem, ...]
    preferences: tuple[PreferenceRow, ...]
    external: dict[str, tuple[EvalItem, ...]]
    digests: dict[str, Any]
    """corpus_sha256, chat_sha256, eval_sha256, preferences_sha256 (or None), external_sha256 by name."""


def read_data_files(locate: Locate) -> DataFiles:
    """Read the files of a run folder; `locate` gives the path of a run-folder name."""
    preferences = locate(layout.PREFERENCES)
    return read_files(
        CorpusStore(locate),
        locate(layout.CHAT),
        locate(layout.EVAL),
        preferences=preferences if preferences.is_file() else None,
        external={path.stem: path for path in sorted(locate(layout.EXTERNAL_DIR).glob("*.jsonl"))},
    )


def read_files(
    corpus: CorpusStore, chat: Path, items: Path, *, preferences: Path | None, external: Mapping[str, Path]
) -> DataFiles:
    """The same of files that lie anywhere; external benchmarks are given in the eval format, by name."""
    return DataFiles(
        corpus=corpus,
        chat=tuple(read_chat(chat)),
        eval=tuple(read_eval(items)),
        preferences=tuple(read_preferences(preferences)) if preferences else (),
        external={name: tuple(read_eval(path)) for name, path in external.items()},
        digests={
            "corpus_sha256": corpus.sha256,
            "chat_sha256": file_sha256(chat),
            "eval_sha256": file_sha256(items),
            "preferences_sha256": file_sha256(preferences) if preferences else None,
            "external_sha256": {name: file_sha256(path) for name, path in external.items()},
        },
    )
