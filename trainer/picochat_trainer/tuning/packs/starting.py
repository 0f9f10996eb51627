"""A new dataset pack around a corpus, with starters where they are asked for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from picochat_client.packs import read_dataset_file
from picochat_contract.errors import Code, ContractError, SpecError
from picochat_contract.packs import CorpusRecipe, DatasetPack, PackCorpus

from picochat_trainer.atomic import write_text
from picochat_trainer.data.imports.outputs import PACK, relative_to, write_dataset_file
from picochat_trainer.tuning.packs.files import open_pack
from picochat_trainer.tuning.promotion import PackKey, promote
from picochat_trainer.tuning.row import Row, to_jsonl
from picochat_trainer.tuning.skills.question import Side
from picochat_trainer.tuning.starters.evaluation import eval_items
from picochat_trainer.tuning.starters.preference import preference_starter
from picochat_trainer.tuning.starters.report import starter_markdown
from picochat_trainer.tuning.starters.sft import sft_rows
from picochat_trainer.tuning.starters.texts import texts_of_side

STARTERS: Final[dict[PackKey, str]] = {
    "chat": "chat_starter.jsonl",
    "eval": "eval_starter.jsonl",
    "preferences": "preference_starter.jsonl",
}
SFT_ROWS: Final = 32
EVAL_ITEMS: Final = 24


@dataclass(frozen=True, kw_only=True)
class NewPack:
    path: Path
    rows: Mapping[PackKey, int]
    """Rows of each starter that could be made."""


def pack_path(out: Path) -> Path:
    """`out` itself where it is a JSON file, else the pack in the folder `out`."""
    return out if out.suffix == ".json" else out / PACK


def planned_files(out: Path, *, starters: bool) -> list[Path]:
    """Everything that `init_pack` writes."""
    path = pack_path(out)
    names = STARTERS.values() if starters else ()
    rows = [path.with_name(name) for name in names]
    return [path, *rows, *(row.with_suffix(".md") for row in rows)]


def init_pack(
    out: Path,
    corpus: Path,
    *,
    name: str,
    description: str | None,
    license: str | None,
    starters: bool,
    seed: int,
) -> NewPack:
    """Write a pack that names `corpus`, a file, folder or corpus recipe; raise `corpus_missing` where it is not there."""
    if not corpus.exists():
        raise ContractError(
            Code.CORPUS_MISSING, f"there is no file, folder or recipe {str(corpus)!r}", param="--corpus"
        )
    path = pack_path(out)
    place = relative_to(corpus, path)
    is_recipe = _is_recipe(corpus)
    pack = DatasetPack(
        name=name,
        description=description,
        corpus=PackCorpus(recipe=place) if is_recipe else PackCorpus(input=place),
        license=license,
    )
    write_dataset_file(path, pack)
    open_pack(path)  # every source of a recipe is there
    return NewPack(path=path, rows=_write_starters(path, seed) if starters else {})


def _is_recipe(corpus: Path) -> bool:
    """Raise where a JSON or YAML file is neither a recipe nor rows."""
    if corpus.suffix not in (".json", ".yaml", ".yml"):
        return False
    found = read_dataset_file(corpus)
    if not isinstance(found, CorpusRecipe):
        raise SpecError(
            Code.INVALID_VALUE,
            f"{corpus} is a dataset pack itself; give its corpus, or a corpus recipe (key sources)",
            param="--corpus",
        )
    return True


def _write_starters(path: Path, seed: int) -> dict[PackKey, int]:
    pack = open_pack(path)
    chat = sft_rows(texts_of_side(pack.texts, Side.SFT), max_items=SFT_ROWS, seed=seed)
    items = eval_items(texts_of_side(pack.texts, Side.EVAL), max_items=EVAL_ITEMS, seed=seed)
    if not chat or not items:
        raise ContractError(
            Code.CORPUS_TOO_SMALL,
            "the corpus says too little for starters: expected texts with sentences of 8 words or more; the pack "
            "itself was written",
            param="--starters",
        )
    pairs = preference_starter(chat, seed=seed).rows
    made: dict[PackKey, Sequence[Row]] = {"chat": chat, "eval": items, "preferences": pairs}
    written: dict[PackKey, int] = {}
    for key, rows in made.items():
        if rows:
            target = path.with_name(STARTERS[key])
            write_text(target, to_jsonl(rows))
            facts = {"pack": json.dumps(path.name), "seed": str(seed)}
            write_text(target.with_suffix(".md"), starter_markdown(f"Starter: {key}", rows, facts))
            written[key] = len(rows)
    promote(path, {key: path.with_name(STARTERS[key]) for key in written})
    return written
