"""A pack with a small corpus of its own, and local copies of the hub's datasets."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from picochat_trainer.tuning.packs.files import open_pack
from picochat_trainer.tuning.packs.generated import RowOptions
from picochat_trainer.tuning.packs.hub_rows import HubOptions
from picochat_trainer.tuning.packs.profiles import RowSource

PLACES = ("Arnau", "Belvec", "Corsin", "Drumol", "Esk", "Fallen", "Gorum", "Halvik", "Istra", "Jorvik")
Options = Callable[..., RowOptions]
Copies = dict[str, str]


def corpus_text() -> str:
    return "\n\n".join(
        f"The harbour of {place} was built in {1650 + 7 * number} by workers from the northern valleys. In autumn the "
        f"fishermen of {place} repair {30 + number} wooden boats beside the old customs house. A narrow railway "
        f"carries herring and timber from {place} to the markets inland. The mayor {place[::-1].title()} keeps the "
        "ledger of the tides in a drawer of the town hall, and reads from it at the feast."
        for number, place in enumerate(PLACES)
    )


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack that names a corpus only."""
    (tmp_path / "corpus.txt").write_text(corpus_text())
    path = tmp_path / "dataset_pack.json"
    path.write_text(json.dumps({"name": "harbours", "corpus": "corpus.txt", "license": "CC0-1.0"}))
    return path


@pytest.fixture
def options(pack: Path) -> Options:
    files = open_pack(pack)

    def make(
        *,
        seed: int = 42,
        style: Any = "direct",
        source: RowSource = RowSource.OFFLINE,
        copies: Mapping[str, str] | None = None,
        max_characters: int = 2_000,
    ) -> RowOptions:
        return RowOptions(
            seed=seed,
            style=style,
            source=source,
            hub=HubOptions(copies=copies or {}, max_characters=max_characters),
            documents=files.texts,
            corpus_license=files.pack.license,
        )

    return make


def write_split(folder: Path, split: str, rows: Sequence[dict[str, Any]]) -> None:
    path = folder / "data" / f"{split}-00000-of-00001.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Forty rows in every split that is read, the first of them too long, the second no row."""
    folders = {name: tmp_path / "hub" / name for name in ("smoltalk", "mmlu", "gsm8k", "arc")}
    talk = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me something about topic {n}."},
                {"role": "assistant", "content": f"Topic {n} has {n} sides."},
            ]
        }
        for n in range(40)
    ]
    talk[0]["messages"][0]["content"] = "long " * 2_000
    talk[1] = {"messages": []}
    write_split(folders["smoltalk"], "train", talk)
    for split, offset in (("auxiliary_train", 0), ("test", 100)):
        rows = [
            {
                "question": f"Which mark has case {n + offset} of the register?",
                "subject": "law",
                "choices": ["red", "blue", "green", f"mark {n}"],
                "answer": n % 3 + 1,  # never 0: class labels still count from 0
            }
            for n in range(40)
        ]
        write_split(folders["mmlu"], split, rows)
    for split, offset in (("train", 0), ("test", 100)):
        rows = [
            {
                "question": f"Case {n + offset}: Ann buys {n} pears and {n} plums. How many fruits has she?",
                "answer": f"She has {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n} fruits.\n#### {2 * n}",
            }
            for n in range(40)
        ]
        write_split(folders["gsm8k"], split, rows)
    write_split(
        folders["arc"],
        "test",
        [
            {
                "question": f"Which metal melts first in furnace {n}?",
                "choices": {"label": ["A", "B", "C"], "text": ["tin", "iron", f"alloy {n}"]},
                "answerKey": "A",
            }
            for n in range(40)
        ],
    )
    return {name: str(folder) for name, folder in folders.items()}
