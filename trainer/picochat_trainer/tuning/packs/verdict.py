"""Judges rows before they are written: the inspector on both files, honesty on rows, preferences, benchmarks, corpus."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picochat_contract.data_configs import HonestyConfig

from picochat_trainer.cores import available_cores
from picochat_trainer.data.readiness import Status
from picochat_trainer.honesty.data_files import DataFiles
from picochat_trainer.honesty.report import data_report
from picochat_trainer.tuning.external import read_external
from picochat_trainer.tuning.inspect import inspect_file
from picochat_trainer.tuning.inspection import Inspection
from picochat_trainer.tuning.packs.files import RawCorpus
from picochat_trainer.tuning.preferences import PreferenceRow
from picochat_trainer.tuning.rows import ChatRow, EvalItem, to_jsonl


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is known about the rows."""

    chat: Inspection
    eval: Inspection
    honesty: Mapping[str, Any]
    """As `honesty_report.json`, without digests."""

    @property
    def leaks(self) -> bool:
        """An eval prompt is a prompt that trains."""
        return bool(self.honesty["status"] == Status.BLOCKED)

    @property
    def lines(self) -> list[str]:
        """One line each for the files and for honesty."""
        inspected = (("SFT rows", self.chat), ("eval items", self.eval))
        return [
            *(f"{name} {found.status}{_reasons(found)}" for name, found in inspected),
            f"honesty {self.honesty['status']}: {self.honesty['summary']}",
        ]


def judge_rows(
    chat: Sequence[ChatRow],
    items: Sequence[EvalItem],
    texts: Callable[[], Iterator[tuple[str, str]]],
    *,
    preferences: Sequence[PreferenceRow] = (),
    external: Mapping[str, Path] | None = None,
) -> Verdict:
    """Inspect the files that the rows would make, and look for the items in everything that would train."""
    with tempfile.TemporaryDirectory() as folder:
        chat_path, eval_path = Path(folder, "chat.jsonl"), Path(folder, "eval.jsonl")
        chat_path.write_text(to_jsonl(chat), encoding="utf-8")
        eval_path.write_text(to_jsonl(items), encoding="utf-8")
        inspected = inspect_file(chat_path, kind="chat"), inspect_file(eval_path, kind="eval")
    data = DataFiles(
        corpus=RawCorpus(texts),
        chat=tuple(chat),
        eval=tuple(items),
        preferences=tuple(preferences),
        external={name: tuple(read_external(path, name)) for name, path in (external or {}).items()},
        digests={},
    )
    report = data_report(data, HonestyConfig(), workers=available_cores())
    return Verdict(chat=inspected[0], eval=inspected[1], honesty=report)


def _reasons(found: Inspection) -> str:
    return "".join(f"; {reason.check}: {reason.message}" for reason in found.reasons)
