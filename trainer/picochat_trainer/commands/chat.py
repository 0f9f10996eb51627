"""`picochat serve`, `picochat chat`, `picochat generate`: pass their arguments on to the inference process.

Options and help are those of `picochat_trainer.inference.commands`, the one place that defines them; this module
stays free of torch, so that listing commands is quick.
"""

import os
import sys

import typer

# All arguments, --help too, belong to the process that is started.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def _forwarding(name: str, summary: str) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command(name, help=summary, context_settings=_PASS_ON)
    def forward(context: typer.Context) -> None:
        argv = [sys.executable, "-m", "picochat_trainer", name, *context.args]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, argv)  # noqa: S606  this process becomes the other; no shell is involved

    return app


serve_app = _forwarding("serve", "Serve a checkpoint in OpenAI's API.")
chat_app = _forwarding("chat", "Talk to a checkpoint.")
generate_app = _forwarding("generate", "Continue a prompt.")
