"""`picochat data hf-import|climbmix-import|smollm-import`: Hugging Face datasets become local documents. No torch."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer
from picochat_contract.errors import Code, ContractError
from picochat_contract.packs import CorpusRecipe, DatasetPack, PackCorpus, RecipeSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from picochat_trainer.atomic import write_json
from picochat_trainer.data.imports.hub import DatasetRequest
from picochat_trainer.data.imports.known import (
    CLIMBMIX,
    CLIMBMIX_LICENSE,
    CLIMBMIX_SHARDS,
    SMOLLM,
    SMOLLM_LICENSE,
    SMOLLM_SUBSETS,
    climbmix_files,
)
from picochat_trainer.data.imports.outputs import (
    PACK,
    RECIPE,
    REPORT,
    check_free,
    check_out,
    check_own,
    import_report,
    relative_to,
    write_dataset_file,
    write_out,
)
from picochat_trainer.data.imports.rows import Imported, ImportRequest, import_rows

TEXT_CHARACTERS: Final = 64 << 20
"""Up to here an import into a folder also writes corpus.txt, as the dataset stage does."""

app = typer.Typer()
MaxRows = Annotated[int, typer.Option(min=0, help="Rows to read from the split's beginning; 0 reads all.")]
MinChars = Annotated[int, typer.Option(min=0, help="Skip texts that are shorter.")]
ShardRows = Annotated[int, typer.Option(min=1, help="Documents per Parquet shard.")]
Streaming = Annotated[
    bool, typer.Option("--streaming/--no-streaming", help="Without: download the whole split first.")
]
Resume = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with an interrupted import of the same.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit; the report names the commit.")]
License = Annotated[
    str | None, typer.Option(help="Licence of the documents; default: what the hub's card says.")
]
Force = Annotated[bool, typer.Option(help="Overwrite a finished import in the folder.")]


@app.command()
def hf_import(
    dataset: Annotated[
        str, typer.Option(help="Name on the hub, a folder, or json|parquet|csv|text with --data-files.")
    ],
    out: Annotated[Path, typer.Option(help="All documents in one file: .txt, .jsonl or .parquet.")],
    config: Annotated[str | None, typer.Option(help="Configuration of the dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split to read.")] = "train",
    text_column: Annotated[
        str, typer.Option(help="Column with the text; dots go into nested objects.")
    ] = "text",
    report: Annotated[Path | None, typer.Option(help=f"Default: {REPORT} beside --out.")] = None,
    documents_dir: Annotated[
        Path | None,
        typer.Option(help="Shards with a record per document; default: <out>_documents beside it."),
    ] = None,
    document_shard_rows: ShardRows = 1000,
    max_rows: MaxRows = 1000,
    min_chars: MinChars = 20,
    streaming: Streaming = True,
    data_files: Annotated[list[str] | None, typer.Option(help="File or glob; may be given again.")] = None,
    revision: Revision = None,
    license: License = None,
    pack_out: Annotated[
        Path | None, typer.Option(help="Also write a dataset pack of the documents here.")
    ] = None,
    pack_name: Annotated[str | None, typer.Option(help="Default: the name of the folder of --out.")] = None,
    pack_description: Annotated[str | None, typer.Option(help="Default: what was imported.")] = None,
    pack_force: Annotated[bool, typer.Option(help="Overwrite the pack.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite files that are not of an earlier import.")
    ] = False,
    resume: Resume = True,
) -> None:
    """Import rows of a Hugging Face dataset, one document each, with a report of every row that was left out."""
    check_out(out)
    if pack_out is not None:
        check_free([pack_out], force=pack_force, option="--pack-force")
    request = ImportRequest(
        dataset=DatasetRequest(
            dataset=dataset,
            config=config,
            split=split,
            data_files=tuple(data_files or ()),
            revision=revision,
            streaming=streaming,
        ),
        documents_dir=documents_dir or out.with_name(f"{out.stem}_documents"),
        text_column=text_column,
        max_rows=max_rows,
        min_chars=min_chars,
        document_shard_rows=document_shard_rows,
        resume=resume,
    )
    report = report or out.with_name(REPORT)
    if not force:
        check_own(request, report, out)
    imported = _import(request, license, report, lambda _: out)
    if pack_out is not None:
        pack = DatasetPack(
            name=pack_name or out.absolute().parent.name or "import",
            description=pack_description or _description(imported),
            corpus=PackCorpus(input=relative_to(request.documents_dir, pack_out)),
            license=imported.license,
        )
        write_dataset_file(pack_out, pack)
        print(pack_out)


@app.command()
def climbmix_import(
    out_dir: Annotated[
        Path, typer.Option(help="Gets documents/, the report, a dataset pack, corpus.txt if small.")
    ],
    shards: Annotated[
        int, typer.Option(min=1, max=CLIMBMIX_SHARDS, help="Files of the corpus to read from.")
    ] = 1,
    max_rows: MaxRows = 1000,
    min_chars: MinChars = 20,
    document_shard_rows: ShardRows = 1000,
    streaming: Streaming = True,
    revision: Revision = None,
    dataset: Annotated[str, typer.Option(help="The repository, or a local copy of it.")] = CLIMBMIX,
    force: Force = False,
    resume: Resume = True,
) -> None:
    """Import a part of ClimbMix (400 billion tokens, shuffled) as a dataset pack."""
    check_free([out_dir / PACK], force=force, option="--force")
    request = ImportRequest(
        dataset=DatasetRequest(
            dataset=dataset, data_files=climbmix_files(shards), revision=revision, streaming=streaming
        ),
        documents_dir=out_dir / "documents",
        max_rows=max_rows,
        min_chars=min_chars,
        document_shard_rows=document_shard_rows,
        resume=resume,
    )
    imported = _import_into(out_dir, request, CLIMBMIX_LICENSE, force=force)
    pack = DatasetPack(
        name="climbmix",
        description=_description(imported),
        corpus=PackCorpus(input="documents"),
        license=imported.license,
    )
    write_dataset_file(out_dir / PACK, pack)
    print(out_dir / PACK)


@app.command()
def smollm_import(
    out_dir: Annotated[
        Path, typer.Option(help="Gets a folder per subset, a corpus recipe and a dataset pack.")
    ],
    subset: Annotated[
        list[str] | None,
        typer.Option(
            help=f"NAME or NAME=WEIGHT, of {', '.join(SMOLLM_SUBSETS)}; may be given again. [both, weight 1]"
        ),
    ] = None,
    max_rows: MaxRows = 1000,
    min_chars: MinChars = 20,
    document_shard_rows: ShardRows = 1000,
    streaming: Streaming = True,
    revision: Revision = None,
    dataset: Annotated[str, typer.Option(help="The repository, or a local copy of it.")] = SMOLLM,
    force: Force = False,
    resume: Resume = True,
) -> None:
    """Import rows of SmolLM-Corpus, --max-rows from each subset, as a weighted recipe and a dataset pack."""
    weights = _weights(subset or list(SMOLLM_SUBSETS))
    check_free([out_dir / PACK], force=force, option="--force")
    sources: list[RecipeSource] = []
    for name, weight in weights.items():
        request = ImportRequest(
            dataset=DatasetRequest(dataset=dataset, config=name, revision=revision, streaming=streaming),
            documents_dir=out_dir / name / "documents",
            max_rows=max_rows,
            min_chars=min_chars,
            document_shard_rows=document_shard_rows,
            resume=resume,
        )
        imported = _import_into(out_dir / name, request, SMOLLM_LICENSE, force=force)
        revision = revision or imported.revision  # all subsets of one commit
        path = f"{name}/documents"
        sources.append(RecipeSource(path=path, label=name, weight=weight, license=imported.license))
    recipe = CorpusRecipe(
        name="smollm-corpus", description=f"{dataset}: {', '.join(weights)}", sources=tuple(sources)
    )
    write_dataset_file(out_dir / RECIPE, recipe)
    pack = DatasetPack(name="smollm-corpus", corpus=PackCorpus(recipe=RECIPE), license=sources[0].license)
    write_dataset_file(out_dir / PACK, pack)
    print(out_dir / PACK)


def _import_into(folder: Path, request: ImportRequest, license: str, *, force: bool) -> Imported:
    text = folder / "corpus.txt"
    if not force:
        check_own(request, folder / REPORT, text)

    def out(imported: Imported) -> Path | None:
        if imported.num_characters <= TEXT_CHARACTERS:
            return text
        text.unlink(missing_ok=True)  # of an earlier, smaller import
        return None

    return _import(request, None, folder / REPORT, out, known_license=license)


def _import(
    request: ImportRequest,
    license: str | None,
    report: Path,
    out_of: Callable[[Imported], Path | None],
    *,
    known_license: str | None = None,
) -> Imported:
    """Import, then write the one-file output and the report, and only then forget how far it had come."""
    with _progress(request) as on_rows:
        found = import_rows(request, on_rows)
    imported = replace(found, license=license or found.license or known_license)
    out = out_of(imported) if imported.num_documents else None
    if out is not None:
        write_out(imported, out)
    write_json(report, import_report(imported, report_path=report, out_path=out))
    imported.journal.close()
    _print_import(imported, report)
    imported.require_documents()
    return imported


@contextmanager
def _progress(request: ImportRequest) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        name = " ".join(part for part in (request.dataset.dataset, request.dataset.config) if part)
        task = progress.add_task(f"rows of {name}", total=request.max_rows or None)
        yield lambda rows: progress.update(task, completed=rows)


def _print_import(imported: Imported, report: Path) -> None:
    skipped = "".join(f", {number:,} {reason}" for reason, number in sorted(imported.skipped.items()))
    print(
        f"{imported.rows_seen:,} rows read: {imported.num_documents:,} documents, {imported.num_characters:,} "
        f"characters{skipped}"
    )
    print(
        f"licence {imported.license or 'unknown'}, revision {imported.revision or 'local files'}; see {report}"
    )
    if imported.num_documents:
        folder = imported.request.documents_dir
        print(
            f"{folder}: a record per document; next: picochat data preview --input {shlex.quote(str(folder))}"
        )


def _description(imported: Imported) -> str:
    dataset = imported.request.dataset
    where = f" at {imported.revision}" if imported.revision else ""
    return f"{imported.num_documents:,} documents of {dataset.dataset}{where}, split {dataset.split}."


def _weights(subsets: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for given in subsets:
        name, _, number = given.partition("=")
        try:
            weights[name] = float(number or 1)
        except ValueError:
            weights[name] = 0
        if name not in SMOLLM_SUBSETS or not 0 < weights[name] <= 100:
            raise ContractError(
                Code.INVALID_VALUE,
                f"--subset {given!r}: expected NAME or NAME=WEIGHT with a name of {', '.join(SMOLLM_SUBSETS)} and a "
                "weight above 0 and up to 100",
                param="--subset",
            )
    return weights
