"""`picochat-client`: submit runs, follow them, fetch what they wrote. What a CI job installs.

Exit codes are picochat_contract.exit_codes.ClientExit; HELP says what each means.
"""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import httpx
import typer
from picochat_contract import __version__
from picochat_contract.api import SCOPES
from picochat_contract.errors import Code, ContractError
from picochat_contract.events import EventType
from picochat_contract.spec import json_schema
from picochat_contract.stages import StageName
from picochat_contract.states import RUN_FINAL, RunState
from rich.console import Console
from rich.text import Text

from picochat_client import tables
from picochat_client._client import Client
from picochat_client._edge import run_command
from picochat_client._invocation import PROGRAM, Invocation, print_event, print_json, print_rows
from picochat_client._summary import find_reports
from picochat_client._waiting import wait_for_outcome
from picochat_client.data_cli import app as data_app
from picochat_client.honesty_tables import honesty_parts
from picochat_client.outcome import outcome_of, preflight_exit, verdict_exit
from picochat_client.paid_launch import ConfirmPaidLaunch, ask_for_paid_launch
from picochat_client.preflight_tables import preflight_line, preflight_table
from picochat_client.specs import read_spec
from picochat_client.terminal import size

HELP = """Submit training runs to a picochat server, follow them, fetch what they wrote.

Exit codes: 0 approved, or finished where no gate was asked for; 1 run failed; 2 blocked by the gate or by preflight
before it; 3 gate warned and --strict; 4 lost, the workers died; 5 cancelled, or a paid launch not confirmed; 64 usage, bad spec, wrong key or scope, not found; 75 server
unreachable past --timeout; 130 Ctrl-C, which leaves the run going.
"""
app = typer.Typer(name=PROGRAM, help=HELP, add_completion=False, rich_markup_mode=None)
keys_app = typer.Typer(help="API keys (scope admin).", rich_markup_mode=None)
app.add_typer(data_app, name="data")
app.add_typer(keys_app, name="keys")

RunId = Annotated[str, typer.Argument(help="Run id, run_...", metavar="RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 3 where the gate warns.")]


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="Server address; else PICOCHAT_URL, else an embedded server.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="API key; better in PICOCHAT_API_KEY, which `ps` does not show.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to go on trying a server that does not answer.")
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit
    invocation: Invocation = context.obj
    invocation.url, invocation.key, invocation.timeout_seconds = url, key, timeout
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def submit(
    context: typer.Context,
    spec: Annotated[Path, typer.Argument(help="Run spec, YAML or JSON.", metavar="SPEC")],
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run to its end; exit by its outcome.")
    ] = False,
    strict: Strict = False,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds to go on trying a server that does not answer [60].")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run, instead of the spec's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, such as base.max_steps=50; may be repeated.")
    ] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key and spec again give the same run.")
    ] = None,
    confirm_paid_launch: ConfirmPaidLaunch = False,
    as_json: AsJson = False,
) -> None:
    """Upload what SPEC names and start a run."""
    invocation: Invocation = context.obj
    invocation.timeout_seconds = invocation.timeout_seconds if timeout is None else timeout
    given = [*(settings or []), *([f"name={json.dumps(name)}"] if name is not None else [])]
    # Before anything is uploaded; the server would refuse it, too.
    if ask_for_paid_launch(read_spec(spec, given).spec, confirmed=confirm_paid_launch, say=invocation.say):
        given.append("confirm_paid_launch=true")
    with invocation.open(waits=True) as client:
        body = client.prepare_spec(spec, given)
        run = client.runs.submit(body, idempotency_key=idempotency_key)
        if wait:
            invocation.say(f"run {run.id} submitted: {client.run_page(run.id)}")
            raise typer.Exit(wait_for_outcome(invocation, client, run, strict=strict, as_json=as_json))
        if as_json:
            print_json(run)
        else:
            print(run.id)
            invocation.say(f"page {client.run_page(run.id)}; follow it with `{PROGRAM} wait {run.id}`")


@app.command()
def runs(
    context: typer.Context,
    state: Annotated[RunState | None, typer.Option(help="Only runs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    with _open(context) as client:
        found = list(islice(client.runs.list(state=state), limit))
    print_rows(found, tables.runs_table(found), as_json)


@app.command()
def show(context: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Show a run and its stages."""
    with _open(context) as client:
        found = client.runs.get(run)
        page = client.run_page(run)
        reports = find_reports(client, found) if found.state is RunState.BLOCKED and not as_json else None
    if as_json:
        return print_json(found)
    console = Console()
    verdict = found.verdict.value if found.verdict else "none yet"
    console.print(tables.text(f"run {found.name} ({found.id}): {found.state.value}, verdict {verdict}"))
    if found.message:
        console.print(tables.text(found.message))
    console.print(tables.stages_table(found))
    if reports is not None and reports.preflight is not None:
        console.print(preflight_table(reports.preflight.report))
        console.print(preflight_line(reports.preflight.report))
    console.print(Text(page), soft_wrap=True)
    return None


@app.command()
def logs(
    context: typer.Context,
    run: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run is final.")] = False,
    stage: Annotated[StageName | None, typer.Option(help="Only this stage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the log lines of a run (JSON: one event per line)."""
    with _open(context, follow) as client:
        for event in client.runs.events(run, follow=follow):
            if event.type is EventType.LOG and stage in (None, event.stage):
                print_event(event, as_json, tables.log_line)


@app.command()
def events(
    context: typer.Context,
    run: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the run is final.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only events with a higher sequence number.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the events of a run (JSON: one event per line)."""
    with _open(context, follow) as client:
        for event in client.runs.events(run, after=after, follow=follow):
            print_event(event, as_json, tables.event_line)


@app.command()
def wait(context: typer.Context, run: RunId, strict: Strict = False, as_json: AsJson = False) -> None:
    """Follow a run that was submitted before; exit by its outcome."""
    invocation: Invocation = context.obj
    with invocation.open(waits=True) as client:
        raise typer.Exit(
            wait_for_outcome(invocation, client, client.runs.get(run), strict=strict, as_json=as_json)
        )


@app.command()
def cancel(
    context: typer.Context,
    run: RunId,
    until_final: Annotated[bool, typer.Option("--wait", help="Wait until its work has stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop a run. Exits 0 once it is cancelled; with --wait by its outcome if it finished first."""
    with _open(context, until_final) as client:
        found = client.runs.cancel(run)
        if until_final:
            found = client.runs.wait(run, after=found.last_seq)
    if as_json:
        print_json(found)
    else:
        print(
            f"run {run} {found.state.value}" if found.state in RUN_FINAL else f"run {run} will be cancelled"
        )
    if until_final and found.state is not RunState.CANCELLED:
        raise typer.Exit(outcome_of(found))


@app.command()
def checkpoint(context: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Ask the running stage for a checkpoint, without stopping it."""
    with _open(context) as client:
        found = client.runs.checkpoint(run)
    if as_json:
        print_json(found)
    else:
        print(f"run {run} writes a checkpoint at its worker's next heartbeat")


@app.command()
def schema() -> None:
    """Print the JSON Schema of a run spec, for editors. Needs no server."""
    print(json.dumps(json_schema(), indent=2))


@app.command()
def gate(context: typer.Context, run: RunId, strict: Strict = False, as_json: AsJson = False) -> None:
    """Show the gate report; exit 0 approved, 2 blocked, 3 warned and --strict."""
    with _open(context) as client:
        found = client.runs.gate(run)
    if as_json:
        print_json(found)
    else:
        console = Console()
        console.print(tables.gate_table(found.report))
        console.print(tables.gate_line(found.report))
    raise typer.Exit(verdict_exit(found.report.verdict, strict=strict))


@app.command()
def preflight(context: typer.Context, run: RunId, strict: Strict = False, as_json: AsJson = False) -> None:
    """Show what preflight measured and judged; exit 0 ready, 2 blocked, 3 warned and --strict."""
    with _open(context) as client:
        found = client.runs.preflight(run)
    if as_json:
        print_json(found)
    else:
        console = Console()
        console.print(preflight_table(found.report))
        console.print(preflight_line(found.report))
    raise typer.Exit(preflight_exit(found.report.status, strict=strict))


@app.command()
def honesty(context: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Show what was found of the eval in the training data, and the audit of what was trained on."""
    with _open(context) as client:
        found = client.runs.honesty(run)
    if as_json:
        return print_json(found)
    console = Console()
    for part in honesty_parts(found):
        console.print(part)
    return None


@app.command()
def artifacts(context: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """List what a run wrote."""
    with _open(context) as client:
        found = list(client.artifacts.list(run))
    print_rows(found, tables.artifacts_table(found), as_json)


@app.command()
def get(
    context: typer.Context,
    run: RunId,
    path: Annotated[str, typer.Argument(help="Artifact; one that ends in / means all below it.")] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File, or folder where PATH is a folder.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every artifact of the run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Download one artifact, or many into a folder under their own paths. Sums are checked; breaks are resumed."""
    if not path and not everything:
        raise ContractError(Code.INVALID_REQUEST, "name a PATH, or --all for every artifact of the run")
    invocation: Invocation = context.obj
    with invocation.open(waits=True) as client:
        if everything or path.endswith("/"):
            folder = output or Path()
            found = client.artifacts.below(run, path)
            written = [client.artifacts.download_into(run, artifact, folder) for artifact in found]
        else:
            found = [client.artifacts.find(run, path)]
            target = output or Path(Path(path).name)
            target = target / Path(path).name if target.is_dir() else target
            written = [client.artifacts.download(run, found[0], target)]
    if as_json:
        rows = zip(written, found, strict=True)
        print(
            json.dumps([{"file": str(file), **artifact.model_dump(mode="json")} for file, artifact in rows])
        )
    else:
        for file, artifact in zip(written, found, strict=True):
            print(f"{file}  {size(artifact.size_bytes)}  sha256 {artifact.sha256[:12]}")


@app.command()
def release(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the model.", metavar="NAME")],
    run: RunId,
    as_json: AsJson = False,
) -> None:
    """Release a run's model; the server refuses one whose gate did not approve it."""
    with _open(context) as client:
        found = client.releases.create(name, run)
    if as_json:
        return print_json(found)
    print(f"released {found.name} version {found.version}: checkpoint {found.checkpoint_sha256[:12]}")
    return None


@app.command()
def releases(context: typer.Context, as_json: AsJson = False) -> None:
    """List releases."""
    with _open(context) as client:
        found = list(client.releases.list())
    print_rows(found, tables.releases_table(found), as_json)


@app.command()
def workers(context: typer.Context, as_json: AsJson = False) -> None:
    """List workers."""
    with _open(context) as client:
        found = list(client.workers.list())
    print_rows(found, tables.workers_table(found), as_json)


@keys_app.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the key is for.", metavar="NAME")],
    scopes: Annotated[list[str], typer.Option("--scope", help=f"May be repeated: {', '.join(SCOPES)}.")],
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Days until it stops working.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key; its secret is shown once."""
    with _open(context) as client:
        found = client.keys.create(name, scopes, expires_in_days=expires_in_days)
    if as_json:
        return print_json(found)
    print(found.secret)
    context.obj.say(f"key {found.id} ({found.name}): this is the only time that its secret is shown")
    return None


@keys_app.command("list")
def list_keys(context: typer.Context, as_json: AsJson = False) -> None:
    """List keys, without their secrets."""
    with _open(context) as client:
        found = list(client.keys.list())
    print_rows(found, tables.keys_table(found), as_json)


@keys_app.command("revoke")
def revoke_key(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="Key id, key_...", metavar="KEY")],
    as_json: AsJson = False,
) -> None:
    """Make a key stop working."""
    with _open(context) as client:
        client.keys.revoke(key)
    print(json.dumps({"revoked": key}) if as_json else f"key {key} revoked")


def _open(context: typer.Context, waits: bool = False) -> Client:
    invocation: Invocation = context.obj
    return invocation.open(waits=waits)


def main(argv: Sequence[str] | None = None, *, transport: httpx.BaseTransport | None = None) -> int:
    """Run the program and return its exit code; `transport` is a seam for tests."""
    invocation = Invocation(messages=Console(stderr=True), transport=transport)
    return run_command(typer.main.get_command(app), argv, prog_name=PROGRAM, obj=invocation)
