"""`picochat-client data`: push datasets, look at them, and have the server check them before anything is trained.

The server has no trainer: preview and honesty submit a run that ends early, wait, and print what it found. What
such a run makes is reused by a later run on the same data.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from picochat_contract import layout
from picochat_contract.api import RunOut
from picochat_contract.api_data import DatasetKind
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.overrides import with_setting
from picochat_contract.stages import StageName
from picochat_contract.states import RunState
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from picochat_client import tables
from picochat_client._client import Client
from picochat_client._edge import INTERRUPTED
from picochat_client._invocation import Invocation, print_json, print_rows
from picochat_client._summary import headline
from picochat_client._transfer import Progress as OnBytes
from picochat_client._waiting import follow
from picochat_client.datasets import dataset_section, local_files, parse_reference
from picochat_client.honesty_tables import honesty_parts
from picochat_client.outcome import outcome_of, preflight_exit
from picochat_client.preflight_tables import preflight_line, preflight_table
from picochat_client.terminal import printable, size

app = typer.Typer(help="Datasets: push, look, check.", rich_markup_mode=None)
Reference = Annotated[str, typer.Argument(help="NAME or NAME@VERSION.", metavar="NAME[@V]")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE of the run spec; may be repeated.")
]


@app.command()
def push(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(help="File, folder, dataset pack or corpus recipe (.json, .yaml).", metavar="PATH"),
    ],
    name: Annotated[str, typer.Option(help="Name of the dataset: lower case, digits, '.', '_', '-'.")],
    kind: Annotated[
        DatasetKind | None, typer.Option(help="What PATH is, where its name does not say it.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of files that name none, such as CC-BY-4.0.")
    ] = None,
    description: Annotated[str, typer.Option(help="A line for people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Upload files and register them as the next version of a dataset. Nothing that the server has is sent again."""
    files = local_files(path, kind=kind, name=name)
    invocation: Invocation = context.obj
    with invocation.open(waits=True) as client, _upload_bar(invocation) as on_bytes:
        dataset, is_new = client.datasets.push(
            name, files, description=description, license=license, progress=on_bytes
        )
    if as_json:
        return print_json(dataset)
    print(f"{dataset.name}@{dataset.version}")
    done = "registered" if is_new else "was there already"
    invocation.say(
        f"{dataset.kind} of {dataset.num_files} files, {size(dataset.size_bytes)}, {done}; in a run spec: "
        f"{{type: dataset, name: {dataset.name}}}"
    )
    return None


@app.command("list")
def list_datasets(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="Only versions of this name.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List versions of datasets, newest first."""
    invocation: Invocation = context.obj
    with invocation.open() as client:
        found = list(islice(client.datasets.list(name=name), limit))
    print_rows(found, tables.datasets_table(found), as_json)


@app.command()
def show(context: typer.Context, name: Reference, as_json: AsJson = False) -> None:
    """Show a dataset with its files."""
    reference = parse_reference(name)
    invocation: Invocation = context.obj
    with invocation.open() as client:
        found = client.datasets.find(reference.name, reference.version)
    if as_json:
        return print_json(found)
    console = Console()
    console.print(tables.datasets_table([found]))
    if found.description:
        console.print(tables.text(found.description))
    console.print(tables.dataset_files_table(found.files))
    for source in found.left_out:
        console.print(tables.text(f"left out: {source.path} ({source.reason})"))
    return None


@app.command()
def preview(
    context: typer.Context, name: Reference, settings: Settings = None, as_json: AsJson = False
) -> None:
    """Have the server build the corpus and print its report. Exits as `wait` does."""
    invocation: Invocation = context.obj
    with invocation.open(waits=True) as client:
        run = _run_on_dataset(invocation, client, name, StageName.DATASET, settings or [])
        if run.state is RunState.SUCCEEDED:
            if as_json:
                manifest = json.loads(client.artifacts.read(run.id, layout.CORPUS_MANIFEST))
                lists = ("documents", "dropped", "files", "shards")
                corpus = {key: value for key, value in manifest.items() if key not in lists}
                _print_answer(run, outcome_of(run), corpus=corpus)
            else:
                print(
                    printable(client.artifacts.read(run.id, layout.CORPUS_REPORT).decode("utf-8", "replace"))
                )
        else:
            _print_ending(run, as_json)
        raise typer.Exit(outcome_of(run))


@app.command()
def honesty(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="NAME or NAME@VERSION.", metavar="[NAME[@V]]")] = None,
    spec: Annotated[
        Path | None, typer.Option(help="A run spec instead of a name: its data and its plan.")
    ] = None,
    settings: Settings = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 where preflight only warns.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have the server compare the data and judge the plan; exit 0, or 2 where a run on it would be blocked."""
    if (name is None) == (spec is None):
        raise ContractError(Code.INVALID_REQUEST, "give a dataset's NAME or --spec FILE, one of the two")
    invocation: Invocation = context.obj
    with invocation.open(waits=True) as client:
        if name is not None:
            run = _run_on_dataset(invocation, client, name, StageName.PREFLIGHT, settings or [])
        else:
            assert spec is not None, "one of the two was given"
            body = client.prepare_spec(spec, [*(settings or []), f"until={StageName.PREFLIGHT}"])
            run = _finished(invocation, client, body)
        if run.state not in (RunState.SUCCEEDED, RunState.BLOCKED):
            _print_ending(run, as_json)
            raise typer.Exit(outcome_of(run))
        raise typer.Exit(_print_findings(client, run, strict=strict, as_json=as_json))


def _run_on_dataset(
    invocation: Invocation, client: Client, name: str, until: StageName, settings: list[str]
) -> RunOut:
    reference = parse_reference(name)
    dataset = client.datasets.find(reference.name, reference.version)
    body: dict[str, Any] = {"name": f"{until}-{dataset.name}", "dataset": dataset_section(dataset)}
    for setting in settings:
        body = with_setting(body, setting)
    return _finished(invocation, client, {**body, "until": until.value})


def _finished(invocation: Invocation, client: Client, body: dict[str, Any]) -> RunOut:
    run = client.runs.submit(body)
    invocation.say(f"run {run.id} submitted: {client.run_page(run.id)}")
    final, _ = follow(invocation, client, run)
    if final is None:
        raise typer.Exit(INTERRUPTED)
    return final


def _print_findings(client: Client, run: RunOut, *, strict: bool, as_json: bool) -> int:
    found, judged = client.runs.honesty(run.id), client.runs.preflight(run.id)
    outcome = preflight_exit(judged.report.status, strict=strict)
    if as_json:
        _print_answer(
            run, outcome, honesty=found.model_dump(mode="json"), preflight=judged.model_dump(mode="json")
        )
        return outcome
    console = Console()
    for part in [*honesty_parts(found), preflight_table(judged.report), preflight_line(judged.report)]:
        console.print(part)
    print(f"exit {outcome.value} ({outcome.name.lower()})", flush=True)
    return outcome


def _print_ending(run: RunOut, as_json: bool) -> None:
    """A run that failed or was cancelled before it found anything."""
    outcome = outcome_of(run)
    if as_json:
        _print_answer(run, outcome)
    else:
        Console().print(headline(run))
        print(f"exit {outcome.value} ({outcome.name.lower()})", flush=True)


def _print_answer(run: RunOut, outcome: ClientExit, **found: Any) -> None:
    answer = {"outcome": outcome.name.lower(), "exit_code": outcome.value, "run": run.model_dump(mode="json")}
    print(json.dumps({**answer, **found}, indent=2))


@contextmanager
def _upload_bar(invocation: Invocation) -> Iterator[OnBytes]:
    """Bytes on their way up, on a terminal; nothing elsewhere."""
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=invocation.messages, transient=True) as bar:
        task = bar.add_task("uploading", total=None, visible=False)

        def on_bytes(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield on_bytes
