"""`submit --wait`: follow a run to its end, show it, and say by the exit code how it went."""

import json

from picochat_contract.api import RunOut
from picochat_contract.exit_codes import ClientExit
from rich.console import Console

from picochat_client._client import Client
from picochat_client._edge import INTERRUPTED
from picochat_client._errors import ServerUnreachable
from picochat_client._invocation import PROGRAM, Invocation
from picochat_client._summary import Reports, find_reports, print_summary
from picochat_client.outcome import outcome_of
from picochat_client.progress import progress_for
from picochat_client.retry import SystemClock
from picochat_client.view import RunView, Sample


def wait_for_outcome(
    invocation: Invocation, client: Client, run: RunOut, *, strict: bool, as_json: bool
) -> int:
    """Return the exit code. Ctrl-C and a server that stays away leave the run going."""
    final, samples = follow(invocation, client, run)
    if final is None:
        return INTERRUPTED
    reports = find_reports(client, final)
    outcome = outcome_of(final, strict=strict)
    if as_json:
        print(json.dumps(_answer(client, final, reports, outcome), indent=2))
    else:
        print_summary(Console(), client, final, reports, samples)
        print(f"exit {outcome.value} ({outcome.name.lower()})", flush=True)
    return outcome


def follow(invocation: Invocation, client: Client, run: RunOut) -> tuple[RunOut | None, dict[str, Sample]]:
    """Show a run's progress to its end; the final run (None after Ctrl-C) and the samples that it told."""
    view = RunView(run, SystemClock())
    try:
        with progress_for(invocation.messages, view) as progress:
            return client.runs.wait(run.id, progress.on_event), view.samples
    except KeyboardInterrupt:
        invocation.say(f"\nstopped waiting; run {run.id} goes on")
        _say_how_to_go_on(invocation, run.id)
        return None, view.samples
    except ServerUnreachable:
        _say_how_to_go_on(invocation, run.id)
        raise


def _answer(client: Client, run: RunOut, reports: Reports, outcome: ClientExit) -> dict[str, object]:
    return {
        "outcome": outcome.name.lower(),
        "exit_code": outcome.value,
        "page": client.run_page(run.id),
        "run": run.model_dump(mode="json"),
        "gate": reports.gate.model_dump(mode="json") if reports.gate else None,
        "preflight": reports.preflight.model_dump(mode="json") if reports.preflight else None,
    }


def _say_how_to_go_on(invocation: Invocation, run: str) -> None:
    invocation.say(f"follow it: {PROGRAM} wait {run}")
    invocation.say(f"cancel it: {PROGRAM} cancel {run}")
