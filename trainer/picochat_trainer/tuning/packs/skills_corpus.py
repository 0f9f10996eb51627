"""The skills corpus: drills, several per document, as Parquet records and as one file, with the proof that no eval item
is in them."""

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
from picochat_client.packs import read_dataset_file
from picochat_contract.data_configs import HonestyConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.packs import CorpusRecipe, RecipeSource

from picochat_trainer.atomic import new_folder, previous_of, write_text
from picochat_trainer.cores import available_cores
from picochat_trainer.data.imports.outputs import relative_to, write_dataset_file
from picochat_trainer.honesty.matrix import Pair, compare
from picochat_trainer.honesty.texts import CORPUS, TextSet, eval_texts
from picochat_trainer.tuning.packs.drills import DRILLS, take_drills
from picochat_trainer.tuning.release_skills import SHARES, generate_eval
from picochat_trainer.tuning.rows import EvalItem
from picochat_trainer.tuning.shares import shares_among

DRILLS_PER_DOCUMENT: Final = 16
CHECKED_ITEMS: Final = 2_000
LICENSE: Final = "MIT"
SHARD: Final = "shard-{index:06d}.parquet"


@dataclass(frozen=True, kw_only=True)
class DrillDocument:
    """Drills of one skill, a blank line between those of several lines."""

    label: str
    text: str


def drill_documents(rows: Mapping[str, int], seed: int) -> list[DrillDocument]:
    """Documents of all skills in random order; `rows` counts the drills of each."""
    documents = [
        DrillDocument(label=f"{skill} drills", text=_joined(texts))
        for skill, count in rows.items()
        for texts in _pieces([drill.text for drill in take_drills(skill, count, seed)])
    ]
    random.Random(f"{seed} drill documents").shuffle(documents)
    return documents


def eval_items_to_look_for(seed: int) -> list[EvalItem]:
    """Eval items of the drilled skills."""
    return generate_eval(CHECKED_ITEMS, seed=seed, shares=shares_among(SHARES, tuple(DRILLS)))


def find_items(documents: Sequence[DrillDocument], items: Sequence[EvalItem]) -> Pair:
    """Look for eval items in the documents."""
    corpus = TextSet(
        name=CORPUS,
        documents=lambda: ((f"{index:06d} {one.label}", one.text) for index, one in enumerate(documents)),
    )
    [pair] = compare(corpus, [eval_texts(items)], HonestyConfig(), workers=available_cores())
    return pair


def write_shards(documents: Sequence[DrillDocument], folder: Path, rows_per_shard: int) -> int:
    """Write one record per document (columns text, label, row) in place of what was there; return the shards."""
    schema = pa.schema([("text", pa.large_string()), ("label", pa.string()), ("row", pa.int64())])
    starts = range(0, len(documents), rows_per_shard)
    with new_folder(folder) as temporary:
        for index, start in enumerate(starts):
            part = documents[start : start + rows_per_shard]
            rows = [
                {"text": document.text, "label": document.label, "row": row}
                for row, document in enumerate(part, start=start)
            ]
            pq.write_table(
                pa.Table.from_pylist(rows, schema=schema),
                temporary / SHARD.format(index=index),
                compression="zstd",
            )
    shutil.rmtree(previous_of(folder), ignore_errors=True)
    return len(starts)


def write_recipe(path: Path, base: Path, documents_dir: Path, weight: float) -> None:
    """A corpus recipe of `base` (a file, a folder or a recipe) and the drills, `weight` copies of them per epoch."""
    skills = RecipeSource(
        path=relative_to(documents_dir, path), label="skills", license=LICENSE, weight=weight
    )
    if not base.exists():
        raise ContractError(
            Code.CORPUS_MISSING, f"there is no file, folder or recipe {str(base)!r}", param="--base-corpus"
        )
    if base.suffix in (".json", ".yaml", ".yml"):
        found = read_dataset_file(base)
        if not isinstance(found, CorpusRecipe):
            raise ContractError(
                Code.INVALID_VALUE,
                f"{base} is a dataset pack; expected text, or a corpus recipe (key sources)",
                param="--base-corpus",
            )
        moved = [
            source.model_copy(update={"path": relative_to(base.parent / source.path, path)})
            for source in found.sources
        ]
        recipe = found.model_copy(update={"sources": (*moved, skills)})
    else:
        base_source = RecipeSource(path=relative_to(base, path), label="base")
        recipe = CorpusRecipe(name="base-and-skills", sources=(base_source, skills))
    write_dataset_file(path, recipe)


def skills_markdown(
    documents: Sequence[DrillDocument], rows: Mapping[str, int], seed: int, pair: Pair
) -> str:
    labels = Counter(document.label for document in documents)
    return "\n".join(
        [
            "# Skills corpus",
            "",
            "Drills of the SFT side of the release skills, for base training. Made by rules.",
            "",
            f"- seed: {seed}",
            f"- licence: {LICENSE}",
            *(f"- {skill} drills: {count:,}" for skill, count in rows.items()),
            *(f"- documents of {label}: {count:,}" for label, count in sorted(labels.items())),
            f"- characters: {sum(len(document.text) for document in documents):,}",
            f"- contamination: {len(pair.contaminated)} of {len(pair.items):,} generated eval items are marked by a "
            f"measure ({', '.join(pair.measures)}); risk {pair.risk}",
            "",
        ]
    )


def write_text_file(documents: Sequence[DrillDocument], path: Path) -> None:
    """All documents as text, blank lines between them."""
    write_text(path, "\n\n".join(document.text for document in documents) + "\n")


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    stream = iter(texts)
    while piece := list(islice(stream, DRILLS_PER_DOCUMENT)):
        yield piece


def _joined(texts: Sequence[str]) -> str:
    return ("\n\n" if any("\n" in text for text in texts) else "\n").join(texts)
