"""`picochat data preview|build`: look at a corpus, or build one. No torch."""

from pathlib import Path
from typing import Annotated, Final

import typer
from picochat_contract.data_configs import FileSource, PydocSource, Source
from picochat_contract.errors import Code, ContractError
from rich.console import Console
from rich.table import Table

from picochat_trainer.data.corpus import Corpus, build_corpus
from picochat_trainer.data.manifest import write_corpus
from picochat_trainer.data.readiness import judge_corpus
from picochat_trainer.data.sources import open_sources

SHOWN_FILES: Final = 25
SHOWN_FINDINGS: Final = 20

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Inputs = Annotated[
    list[Path] | None,
    typer.Option("--input", help="File or folder of .txt .md .py .jsonl .csv; may be given again."),
]
Pydoc = Annotated[bool, typer.Option("--pydoc", help="Python's own reference manual.")]
MinScore = Annotated[float, typer.Option(min=0, max=100, help="Leave out documents that score less.")]


@app.command()
def preview(
    input: Inputs = None,
    pydoc: Pydoc = False,
    min_score: MinScore = 0,
    preview_chars: Annotated[int, typer.Option(min=0, help="Characters of the text to show.")] = 800,
) -> None:
    """Show what a corpus would hold. Writes nothing."""
    sources = _sources(input, pydoc)
    corpus = build_corpus(open_sources(sources, artifact_path=_no_artifacts), min_score=min_score)
    console = Console()
    _print_files(console, corpus)
    _print_checks(console, corpus)
    if preview_chars:
        first = next(
            document
            for file in open_sources(sources, artifact_path=_no_artifacts)
            if file.documents is not None
            for document in file.documents()
            if document.path == corpus.documents[0].path
        )
        console.print(f"\n{first.path}:", markup=False, highlight=False)
        console.print(first.text[:preview_chars], markup=False, highlight=False)


@app.command()
def build(
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
    input: Inputs = None,
    pydoc: Pydoc = False,
    min_score: MinScore = 0,
    manifest: Annotated[
        Path | None, typer.Option(help="Default: corpus_manifest.json beside the corpus.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Default: corpus_report.md beside the corpus.")] = None,
) -> None:
    """Write corpus.txt with its manifest and report."""
    sources = _sources(input, pydoc)
    manifest_path = manifest or out.with_name("corpus_manifest.json")
    report_path = report or out.with_name("corpus_report.md")
    for path in (out, manifest_path, report_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    corpus = write_corpus(
        open_sources(sources, artifact_path=_no_artifacts),
        sources,
        min_score=min_score,
        corpus_path=out,
        manifest_path=manifest_path,
        report_path=report_path,
    )
    readiness = judge_corpus(corpus)
    print(f"{corpus.stats.num_documents} documents, {corpus.stats.num_characters:,} characters: {out}")
    print(f"readiness {readiness.status}: {readiness.summary}; see {report_path}")


def _sources(inputs: list[Path] | None, pydoc: bool) -> list[Source]:
    sources: list[Source] = [PydocSource()] if pydoc else []
    sources += [FileSource(type="file", path=str(path)) for path in inputs or []]
    if not sources:
        raise ContractError(Code.CORPUS_MISSING, "give --input PATH or --pydoc", param="--input")
    return sources


def _no_artifacts(digest: str) -> Path:
    raise AssertionError(f"no source on the command line is an upload: {digest}")


def _print_files(console: Console, corpus: Corpus) -> None:
    table = Table("file", "documents", "characters", "quality", "result")
    for file in corpus.files[:SHOWN_FILES]:
        quality = "" if file.quality_score is None else f"{file.quality_score:g}"
        table.add_row(file.path, str(file.num_documents), f"{file.num_characters:,}", quality, file.reason)
    console.print(table)
    if len(corpus.files) > SHOWN_FILES:
        print(f"{len(corpus.files) - SHOWN_FILES} more files")


def _print_checks(console: Console, corpus: Corpus) -> None:
    readiness = judge_corpus(corpus)
    table = Table("check", "status", "measured", "limit")
    for check in readiness.checks:
        table.add_row(check.name, check.status, check.message, f"{check.threshold:g}")
    console.print(table)
    print(
        f"{corpus.stats.num_documents} documents, {corpus.stats.num_characters:,} characters, "
        f"{len(corpus.dropped)} left out; readiness {readiness.status}: {readiness.summary}"
    )
