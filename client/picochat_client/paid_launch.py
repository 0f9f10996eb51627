"""Asks for a run that is paid for by the hour: on a terminal, or by an option where there is none."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from picochat_contract.exit_codes import ClientExit
from picochat_contract.paid_launch import ConfirmationRequiredError, PaidLaunch, paid_launch
from picochat_contract.spec import RunSpec

ConfirmPaidLaunch = Annotated[
    bool,
    typer.Option(
        "--confirm-paid-launch",
        help="Start a long run on GPUs without asking; for CI and where nobody is there.",
    ),
]
Say = Callable[[str], None]


def ask_for_paid_launch(spec: RunSpec, *, confirmed: bool, say: Say) -> bool:
    """True if the run needs a confirmation and was given one now; False if it needs none, or its spec has it.

    Raises `confirmation_required` where there is nobody to ask, and ends with exit 5 where the answer is no.
    """
    launch = paid_launch(spec)
    if launch is None or spec.confirm_paid_launch:
        return False
    ask_for(launch, confirmed=confirmed, say=say)
    return True


def ask_for(launch: PaidLaunch, *, confirmed: bool, say: Say) -> None:
    """Return where `launch` is confirmed, beforehand or now.

    Raises `confirmation_required` where there is nobody to ask, and ends with exit 5 where the answer is no.
    """
    if confirmed:
        return
    if not is_terminal():
        raise ConfirmationRequiredError(launch)
    if not _answer(launch, say):
        say("not confirmed; nothing was started")
        raise typer.Exit(ClientExit.CANCELLED)


def is_terminal() -> bool:
    """Somebody can see the question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _answer(launch: PaidLaunch, say: Say) -> bool:
    say("this run is paid for by the hour:")
    for name, value in launch.facts:
        say(f"  {name:<16} {value}")
    say(f"first, {launch.advice}")
    return typer.confirm("start it?", default=False, err=True)
