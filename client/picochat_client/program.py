"""`picochat`: one program, whose commands other parts of the distribution bring as entry points.

The group `picochat.commands` in pyproject.toml names them; each is a `typer.Typer`. Only the one that is called is
imported, so `picochat --help` is quick and works without torch and without the server's packages.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from picochat_contract import __version__
from picochat_contract.exit_codes import ClientExit
from typer.core import TyperGroup

from picochat_client._edge import report_error, run_command

PROGRAM = "picochat"
GROUP = "picochat.commands"


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A command's line in `picochat --help`, and what it needs."""

    text: str
    extra: str
    """The extra of the distribution that installs it."""
    probe: str
    """A package that this extra brings; looked for, not imported."""


COMMANDS: dict[str, Summary] = {
    "up": Summary(text="Start server, worker and pages on this machine.", extra="all", probe="sqlalchemy"),
    "demo": Summary(
        text="Start, train the demo model, show its gate report.", extra="all", probe="sqlalchemy"
    ),
    "run": Summary(text="Run all stages here, without a server.", extra="train", probe="torch"),
    "scale": Summary(text="Plan a model: shape, batch, steps, memory, time.", extra="train", probe="torch"),
    "sanity": Summary(text="Check a machine before a long run is paid for.", extra="train", probe="torch"),
    "train": Summary(text="Train one stage: base or sft.", extra="train", probe="torch"),
    "data": Summary(text="Make and look at corpora and rows.", extra="train", probe="tokenizers"),
    "tok": Summary(text="Train and try tokenizers.", extra="train", probe="tokenizers"),
    "batch": Summary(text="Look at training batches.", extra="train", probe="torch"),
    "eval": Summary(text="Score a checkpoint.", extra="train", probe="torch"),
    "chat": Summary(text="Talk to a checkpoint.", extra="train", probe="torch"),
    "generate": Summary(text="Continue a prompt.", extra="train", probe="torch"),
    "serve": Summary(text="Serve a checkpoint in OpenAI's API.", extra="train", probe="torch"),
    "server": Summary(text="Run the control plane of a team.", extra="server", probe="sqlalchemy"),
    "worker": Summary(text="Run stages for a server.", extra="worker", probe="celery"),
}


class LazyGroup(TyperGroup):
    """Lists commands from the table and the entry points, imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        known = _entry_points()
        return [*(name for name in COMMANDS if name in known), *sorted(known.keys() - COMMANDS.keys())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the help line; `resolve_command` puts the real one in its place."""
        return typer.main.get_command(_stand_in(cmd_name)) if cmd_name in _entry_points() else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # TyperGroup suggests from `commands`, which is otherwise empty here.
        self.commands = dict.fromkeys(_entry_points())  # type: ignore[assignment]
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(_entry_points()[str(name)]), rest


app = typer.Typer(name=PROGRAM, cls=LazyGroup, add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train small language models and judge them honestly. To talk to a server: picochat-client."""
    if version:
        print(f"{PROGRAM} {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(typer.main.get_command(app), argv, prog_name=PROGRAM)


def server() -> int:
    """`picochat-server` is `picochat server`."""
    return main(["server", *sys.argv[1:]])


def worker() -> int:
    """`picochat-worker` is `picochat worker`."""
    return main(["worker", *sys.argv[1:]])


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _stand_in(name: str) -> typer.Typer:
    summary = COMMANDS.get(name)
    needs = "" if summary is None or _is_installed(summary) else f" {_needs(summary)}"
    stand_in = typer.Typer(add_completion=False, rich_markup_mode=None)
    stand_in.command(name, short_help=f"{summary.text if summary else name}{needs}")(lambda: None)
    return stand_in


def _load(entry: EntryPoint) -> Any:
    """The real command; exit 64 where a package of its extra is missing."""
    summary = COMMANDS.get(entry.name)
    if summary is not None and not _is_installed(summary):
        raise _not_installed(entry.name, summary, summary.probe)
    try:
        command = typer.main.get_command(entry.load())
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if summary is None or missing.startswith("picochat_") or not missing:
            raise  # a fault of ours: the traceback says where
        raise _not_installed(entry.name, summary, missing) from error
    command.name = entry.name
    return command


def _is_installed(summary: Summary) -> bool:
    return find_spec(summary.probe) is not None


def _needs(summary: Summary) -> str:
    return f'(needs: pip install "picochat[{summary.extra}]")'


def _not_installed(name: str, summary: Summary, missing: str) -> typer.Exit:
    report_error("not_installed", f"picochat {name} lacks the package {missing!r} {_needs(summary)}")
    return typer.Exit(ClientExit.USAGE)
