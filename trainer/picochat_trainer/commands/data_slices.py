"""`picochat data slice-pack|stage-pack`: parts of a dataset pack. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from picochat_contract.errors import Code, ContractError

from picochat_trainer.data.imports.outputs import check_free
from picochat_trainer.tuning.packs.files import open_pack
from picochat_trainer.tuning.packs.slices import Slice, by_category, by_stage, planned_files, write_slice

app = typer.Typer()
PackOption = Annotated[Path, typer.Option("--pack", "--dataset-pack", help="Dataset pack with rows.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command()
def slice_pack(
    pack: PackOption,
    out_dir: Annotated[Path, typer.Option(help="Folder of the new pack.")],
    include_categories: Annotated[
        str, typer.Option(help="Globs of categories to keep, with commas between them. Default: all.")
    ] = "",
    exclude_categories: Annotated[str, typer.Option(help="Globs of categories to leave out.")] = "",
    name: Annotated[str | None, typer.Option(help="Default: the pack's name and -slice.")] = None,
    description: Annotated[str | None, typer.Option(help="Default: the pack's.")] = None,
    force: Force = False,
) -> None:
    """Make a pack of some categories of another; no row changes its side."""
    include, exclude = _listed(include_categories), _listed(exclude_categories)
    if not include and not exclude:
        raise ContractError(
            Code.INVALID_VALUE,
            "give --include-categories or --exclude-categories, such as 'bench_math_*,identity_*'",
            param="--include-categories",
        )
    check_free(planned_files(out_dir), force=force, option="--force")
    rule = f"categories {', '.join(include) or '*'}" + (f" but not {', '.join(exclude)}" if exclude else "")
    _print(
        write_slice(
            open_pack(pack),
            out_dir,
            by_category(include, exclude),
            name=name,
            description=description,
            rule=rule,
        )
    )


@app.command()
def stage_pack(
    pack: PackOption,
    out_dir: Annotated[Path, typer.Option(help="Folder of the new packs, one folder each.")],
    stages: Annotated[
        str,
        typer.Option(
            help="Curriculum stages in order, with commas between packs and + within one: 'l1_*,l2_add+l2_sub'."
        ),
    ],
    force: Force = False,
) -> None:
    """Make one pack per curriculum stage, numbered in the order of training."""
    source = open_pack(pack)
    entries = _listed(stages)
    if not entries:
        raise ContractError(
            Code.INVALID_VALUE,
            "--stages: expected names of stages with commas between them",
            param="--stages",
        )
    folders = [out_dir / f"{number:02d}_{_slug(entry)}" for number, entry in enumerate(entries, start=1)]
    for folder in folders:
        check_free(planned_files(folder), force=force, option="--force")
    for entry, folder in zip(entries, folders, strict=True):
        keep = by_stage(entry.split("+"))
        name = f"{source.pack.name or 'pack'}-{folder.name}"
        _print(
            write_slice(source, folder, keep, name=name, description=None, rule=f"curriculum stages {entry}")
        )


def _listed(text: str) -> Sequence[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _slug(entry: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in entry).strip("_")


def _print(made: Slice) -> None:
    for key, found in made.files.items():
        print(f"{key}: {len(found.lines)} rows kept, {found.left_out.total()} left out")
    print(made.path)
