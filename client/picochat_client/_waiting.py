"""`submit --wait`: follow a run to its end, show it, and say by the exit code how it went."""

import json

from picochat_contract.api import GateOut, RunOut
from picochat_contract.exit_codes import ClientExit
from rich.console import Console

from picochat_client._client import Client
from picochat_client._edge import INTERRUPTED
from picochat_client._errors import ServerUnreachable
from picochat_client._invocation import PROGRAM, Invocation
from picochat_client._summary import find_gate, print_summary
from picochat_client.outcome import outcome_of
from picochat_client.progress import progress_for
from picochat_client.retry import SystemClock
from picochat_client.view import RunView


def wait_for_outcome(
    invocation: Invocation, client: Client, run: RunOut, *, strict: bool, as_json: bool
) -> int:
    """Return the exit code. Ctrl-C and a server that stays away leave the run going."""
    view = RunView(run, SystemClock())
    try:
        with progress_for(invocation.messages, view) as progress:
            final = client.runs.wait(run.id, progress.on_event)
        gate = find_gate(client, final)
    except KeyboardInterrupt:
        invocation.say(f"\nstopped waiting; run {run.id} goes on")
        _say_how_to_go_on(invocation, run.id)
        return INTERRUPTED
    except ServerUnreachable:
        _say_how_to_go_on(invocation, run.id)
        raise
    outcome = outcome_of(final, strict=strict)
    if as_json:
        print(json.dumps(_answer(client, final, gate, outcome), indent=2))
    else:
        print_summary(Console(), client, final, gate, view.samples)
        print(f"exit {outcome.value} ({outcome.name.lower()})", flush=True)
    return outcome


def _answer(client: Client, run: RunOut, gate: GateOut | None, outcome: ClientExit) -> dict[str, object]:
    return {
        "outcome": outcome.name.lower(),
        "exit_code": outcome.value,
        "page": client.run_page(run.id),
        "run": run.model_dump(mode="json"),
        "gate": gate.model_dump(mode="json") if gate else None,
    }


def _say_how_to_go_on(invocation: Invocation, run: str) -> None:
    invocation.say(f"follow it: {PROGRAM} wait {run}")
    invocation.say(f"cancel it: {PROGRAM} cancel {run}")
