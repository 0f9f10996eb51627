"""`picochat data skills-corpus`: drills of the release skills as text for base training. No torch."""

from pathlib import Path
from typing import Annotated

import typer
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit

from picochat_trainer.atomic import write_text
from picochat_trainer.data.imports.outputs import check_free
from picochat_trainer.tuning.packs.skills_corpus import (
    drill_documents,
    eval_items_to_look_for,
    find_items,
    skills_markdown,
    write_recipe,
    write_shards,
    write_text_file,
)

app = typer.Typer()


@app.command()
def skills_corpus(
    out: Annotated[Path, typer.Option(help="Text file with all drills; a report goes beside it as .md.")],
    math_rows: Annotated[int, typer.Option(min=0, help="Drills of arithmetic.")] = 50_000,
    spelling_rows: Annotated[int, typer.Option(min=0, help="Drills of spelling.")] = 50_000,
    choice_rows: Annotated[int, typer.Option(min=0, help="Drills of facts and comparisons.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal drills.")] = 42,
    documents_dir: Annotated[
        Path | None,
        typer.Option(help="Parquet shards with a record per document. Default: <out>_documents beside it."),
    ] = None,
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Documents per shard.")] = 1_000,
    base_corpus: Annotated[
        Path | None, typer.Option(help="File, folder or recipe to mix the drills with; needs --recipe-out.")
    ] = None,
    recipe_out: Annotated[Path | None, typer.Option(help="Corpus recipe of base corpus and drills.")] = None,
    skills_weight: Annotated[
        float, typer.Option(min=0.01, max=100, help="Copies of the drills per epoch, in the recipe.")
    ] = 1.0,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Write drills of the SFT side; exit 2 where an eval item would be in them."""
    if (base_corpus is None) != (recipe_out is None):
        raise ContractError(
            Code.INVALID_VALUE, "--base-corpus and --recipe-out go together", param="--recipe-out"
        )
    folder = documents_dir or out.with_name(f"{out.stem}_documents")
    outputs = [out, out.with_suffix(".md"), folder, *([recipe_out] if recipe_out else [])]
    check_free(outputs, force=force, option="--force")
    rows = {"math": math_rows, "spelling": spelling_rows, "choice": choice_rows}
    if not any(rows.values()):
        raise ContractError(Code.INVALID_VALUE, "give at least one drill of a skill", param="--math-rows")
    documents = drill_documents(rows, seed)
    pair = find_items(documents, eval_items_to_look_for(seed))
    print(f"{len(pair.contaminated)} of {len(pair.items):,} eval items are in the drills; risk {pair.risk}")
    if pair.contaminated:
        raise typer.Exit(ClientExit.GATE_BLOCKED)
    num_shards = write_shards(documents, folder, rows_per_shard)
    write_text_file(documents, out)
    write_text(out.with_suffix(".md"), skills_markdown(documents, rows, seed, pair))
    print(
        f"{sum(rows.values()):,} drills in {len(documents):,} documents, {num_shards} shards: {folder}\n{out}"
    )
    if base_corpus is not None and recipe_out is not None:
        write_recipe(recipe_out, base_corpus, folder, skills_weight)
        print(recipe_out)
