"""`picochat data preview|build|inspect-corpus`: look at what a corpus would be, build one, look at one. No torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from picochat_client.packs import dataset_settings
from picochat_contract import layout
from picochat_contract.data_configs import CleaningConfig, DatasetConfig, FileSource, PydocSource
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import validated
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from picochat_trainer.commands.corpus_places import check_places, corpus_places
from picochat_trainer.cores import available_cores
from picochat_trainer.data.budget import BATCH_ROWS, suggest_budget
from picochat_trainer.data.cluster import Engine, open_workers
from picochat_trainer.data.corpus import build_corpus, preview_corpus
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.data.facts import Corpus
from picochat_trainer.data.readiness import Status, judge_corpus
from picochat_trainer.data.sources import SourceFile, open_sources
from picochat_trainer.tuning.inspect import inspect_file

SHOWN_FILES: Final = 25
SHOWN_DROPPED: Final = 3  # examples by reason

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Inputs = Annotated[
    list[Path] | None,
    typer.Option("--input", help="File or folder of text, rows or documents; may be given again."),
]
Pydoc = Annotated[bool, typer.Option("--pydoc", help="Python's own reference manual.")]
Pack = Annotated[
    Path | None,
    typer.Option("--dataset-pack", "--pack", help="Dataset pack: sources, chat and eval in one file."),
]
Recipe = Annotated[
    Path | None, typer.Option(help="Corpus recipe: sources with labels, weights and excludes.")
]
Label = Annotated[str | None, typer.Option(help="Name of the --input sources in reports.")]
License = Annotated[str | None, typer.Option(help="Licence of the --input sources, such as CC-BY-4.0.")]
TextField = Annotated[
    str | None,
    typer.Option(help="Field or column with the text, of .jsonl, .csv and .parquet. Default: text."),
]
MinScore = Annotated[float, typer.Option(min=0, max=100, help="Leave out documents that score less.")]
Unicode = Annotated[Literal["nfc", "nfkc", "keep"] | None, typer.Option(help="Unicode normal form.")]
ExactDuplicates = Annotated[bool | None, typer.Option(help="Remove documents that repeat an earlier one.")]
NearDuplicates = Annotated[bool | None, typer.Option(help="Remove documents that are nearly an earlier one.")]
NearThreshold = Annotated[
    float | None, typer.Option(help="Similarity from which documents are nearly equal.")
]
RepeatedLines = Annotated[bool | None, typer.Option(help="Keep one of a run of equal lines.")]
Boilerplate = Annotated[
    int | None, typer.Option(help="Remove lines that stand in at least so many documents; 0: none.")
]
MinCharacters = Annotated[int | None, typer.Option(help="Drop shorter documents.")]
Languages = Annotated[
    list[str] | None, typer.Option("--language", help="ISO 639-1 code to keep; may be given again.")
]
MinLanguageProbability = Annotated[float | None, typer.Option(min=0, max=1)]
Pii = Annotated[
    Literal["keep", "mask", "drop"] | None,
    typer.Option(help="E-mail and IP addresses, phone, card and account numbers."),
]
WorkerCount = Annotated[
    int | None, typer.Option("--workers", min=1, help="Processes. Default: one per core.")
]
CLEANING: Final = tuple(CleaningConfig.model_fields)
INPUT_OPTIONS: Final = ("label", "license", "text_field")


@app.command()
def preview(
    input: Inputs = None,
    pydoc: Pydoc = False,
    dataset_pack: Pack = None,
    recipe: Recipe = None,
    label: Label = None,
    license: License = None,
    text_field: TextField = None,
    min_score: MinScore = 0,
    unicode: Unicode = None,
    exact_duplicates: ExactDuplicates = None,
    near_duplicates: NearDuplicates = None,
    near_threshold: NearThreshold = None,
    repeated_lines: RepeatedLines = None,
    boilerplate_documents: Boilerplate = None,
    min_characters: MinCharacters = None,
    languages: Languages = None,
    min_language_probability: MinLanguageProbability = None,
    pii: Pii = None,
    preview_chars: Annotated[int, typer.Option(min=0, help="Characters of the text to show.")] = 800,
    chat_input: Annotated[Path | None, typer.Option(help="Chat JSONL to look at, too.")] = None,
    eval_input: Annotated[Path | None, typer.Option(help="Eval JSONL to look at, too.")] = None,
    workers: WorkerCount = None,
) -> None:
    """Show what a corpus would hold and what would be left out; exit 2 where there is no text. Writes nothing."""
    config = _config(dict(locals()))
    rows = _looked_at(config)
    found = preview_corpus(
        _open(config),
        config.sources,
        config.cleaning,
        config.min_score,
        workers or available_cores(),
        num_characters=preview_chars,
    )
    console = Console()
    _print_files(console, found.corpus)
    _print_judgement(console, found.corpus)
    for line in rows:
        print(line)
    if found.text:
        first = found.corpus.documents[0]["path"]
        console.print(f"\n{first}:\n{found.text}", markup=False, highlight=False, soft_wrap=True)
    _exit_where_blocked(found.corpus)


@app.command()
def build(
    out: Annotated[
        Path, typer.Option(help="Folder for the corpus, or the text file to write beside its shards.")
    ],
    input: Inputs = None,
    pydoc: Pydoc = False,
    dataset_pack: Pack = None,
    recipe: Recipe = None,
    label: Label = None,
    license: License = None,
    text_field: TextField = None,
    min_score: MinScore = 0,
    unicode: Unicode = None,
    exact_duplicates: ExactDuplicates = None,
    near_duplicates: NearDuplicates = None,
    near_threshold: NearThreshold = None,
    repeated_lines: RepeatedLines = None,
    boilerplate_documents: Boilerplate = None,
    min_characters: MinCharacters = None,
    languages: Languages = None,
    min_language_probability: MinLanguageProbability = None,
    pii: Pii = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Default: corpus_manifest.json beside the corpus.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Default: corpus_report.md beside the corpus.")] = None,
    workers: WorkerCount = None,
    engine: Annotated[
        Engine, typer.Option(help="What runs the work: this machine, or a Ray cluster.")
    ] = Engine.LOCAL,
    ray_address: Annotated[
        str | None, typer.Option(help="host:port of the cluster's head. Default: Ray is started here.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that are not an earlier corpus.")
    ] = False,
) -> None:
    """Write the shards of a corpus, its manifest and its report; exit 2 where there is no text."""
    config = _config(dict(locals()))
    places = corpus_places(out.resolve(), manifest, report)
    check_places(places, config.sources, force=force)
    count = workers or available_cores()
    with open_workers(engine, count=count, shared=places.folder.parent, address=ray_address) as pool:
        corpus = build_corpus(_open(config), config.sources, config.cleaning, config.min_score, places, pool)
    _print_judgement(Console(), corpus)
    print(f"{places.folder}: {len(corpus.shards)} shards; see {places.report}")
    _exit_where_blocked(corpus)


@app.command("inspect-corpus")
def inspect_corpus(
    corpus: Annotated[Path, typer.Option(help="Folder with corpus_manifest.json, or a file in it.")],
    documents: Annotated[int, typer.Option(min=0, help="Documents to show.")] = 3,
    preview_chars: Annotated[int, typer.Option(min=0, help="Characters of each to show.")] = 200,
) -> None:
    """Show what a built corpus holds, after checking every shard against its manifest."""
    store = CorpusStore.at(corpus.parent if corpus.is_file() else corpus)
    if store.manifest is None:
        raise ContractError(
            Code.CORPUS_MISSING,
            f"{corpus} has no {layout.CORPUS_MANIFEST}; build the corpus with picochat data build",
            param="--corpus",
        )
    store.check_digests()
    readiness = store.manifest["readiness"]
    for name, value in store.manifest["stats"].items():
        print(f"{name}: {'not measured' if value is None else f'{value:,}'}")
    print(f"left out: {store.manifest['dropped_counts']}")
    print(f"readiness {readiness['status']}: {readiness['summary']}; sha256 {store.sha256}")
    for _, document in zip(range(documents), store.documents(), strict=False):
        print(f"\n{document.document_id} {document.path}:\n{document.text[:preview_chars]}")


def _config(options: dict[str, Any]) -> DatasetConfig:
    """The dataset section that the options stand for."""
    given = [name for name in ("dataset_pack", "recipe") if options[name] is not None]
    named = [PydocSource()] if options["pydoc"] else []
    if len(given) + bool(named or options["input"]) != 1:
        raise ContractError(
            Code.CORPUS_MISSING,
            "give --input PATH (again for more) or --pydoc, or one of --dataset-pack and --recipe",
            param="--input",
        )
    settings: dict[str, Any] = {"sources": [*named, *_inputs(options)]}
    if given:
        _refuse_input_options(options)
        settings = dataset_settings(options[given[0]])
    for name in ("chat", "eval"):
        if options.get(f"{name}_input") is not None:
            settings[name] = {"type": "file", "path": str(options[f"{name}_input"])}
    cleaning = {name: options[name] for name in CLEANING if options[name] is not None}
    return validated(DatasetConfig, {**settings, "cleaning": cleaning, "min_score": options["min_score"]})


def _inputs(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    said = {name: options[name] for name in INPUT_OPTIONS if options[name] is not None}
    for path in options["input"] or []:
        yield {"type": "file", "path": str(path), **said}


def _refuse_input_options(options: dict[str, Any]) -> None:
    for name in INPUT_OPTIONS:
        if options[name] is not None:
            option = f"--{name.replace('_', '-')}"
            raise ContractError(
                Code.INVALID_VALUE,
                f"{option} is about --input sources; a pack or recipe says it of each source itself",
                param=option,
            )


def _open(config: DatasetConfig) -> Iterator[SourceFile]:
    return open_sources(config.sources, artifact_path=_no_artifacts)


def _no_artifacts(digest: str) -> Path:
    raise AssertionError(f"no source on the command line is an upload: {digest}")


def _print_files(console: Console, corpus: Corpus) -> None:
    table = Table(Column("file", overflow="fold"), "documents", "characters", "quality", "result")
    for file in corpus.files[:SHOWN_FILES]:
        quality = "" if file.quality_score is None else f"{file.quality_score:g}"
        table.add_row(
            escape(file.path), f"{file.num_documents:,}", f"{file.num_characters:,}", quality, file.reason
        )
    console.print(table)
    if corpus.stats.num_files > SHOWN_FILES:
        print(f"{corpus.stats.num_files - SHOWN_FILES:,} more files")


def _print_judgement(console: Console, corpus: Corpus) -> None:
    readiness, stats, budget = judge_corpus(corpus), corpus.stats, suggest_budget(corpus.stats)
    table = Table("check", "status", "measured", "limit")
    for check in readiness.checks:
        table.add_row(check.name, check.status, check.message, f"{check.threshold:g}")
    console.print(table)
    for reason, num in sorted(corpus.dropped_counts.items()):
        paths = ", ".join(row["path"] for row in corpus.dropped_examples[reason][:SHOWN_DROPPED])
        console.print(
            f"left out, {reason}: {num:,} ({paths}{', ...' if num > SHOWN_DROPPED else ''})", markup=False
        )
    print(
        f"{stats.num_documents:,} documents, {stats.num_characters:,} characters, {stats.num_removed:,} removed; "
        f"readiness {readiness.status}: {readiness.summary}"
    )
    if budget.estimated_tokens:
        print(
            f"about {budget.estimated_tokens:,} tokens; suggested context {budget.suggested_context_size}, "
            f"{budget.suggested_base_steps:,} steps of {BATCH_ROWS} rows"
        )


def _looked_at(config: DatasetConfig) -> list[str]:
    """A line about the chat and the eval rows, where they are given."""
    lines = []
    for kind, reference in (("chat", config.chat), ("eval", config.eval)):
        if isinstance(reference, FileSource):
            found = inspect_file(Path(reference.path), kind="chat" if kind == "chat" else "eval")
            lines.append(f"{kind} {Path(reference.path).name}: {found.num_rows:,} rows, {found.status}")
    return lines


def _exit_where_blocked(corpus: Corpus) -> None:
    if judge_corpus(corpus).status is Status.BLOCKED:
        raise typer.Exit(ClientExit.GATE_BLOCKED)
