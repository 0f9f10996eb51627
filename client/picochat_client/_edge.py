"""Edge of the command-line programs: runs a command and turns what it raises into a line and an exit code.

Usage errors exit with 64 (sysexits EX_USAGE), not with 2: 2 means "the gate blocked it".
"""

import io
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import typer
from picochat_contract.errors import ContractError
from picochat_contract.exit_codes import ClientExit

from picochat_client._errors import ApiError, PicochatError
from picochat_client.outcome import error_exit
from picochat_client.terminal import printable

INTERRUPTED = 130  # 128 + SIGINT


class RunsAsMain(Protocol):
    """What `typer.main.get_command` gives."""

    def main(self, *args: Any, **kwargs: Any) -> Any: ...


def run_command(command: RunsAsMain, argv: Sequence[str] | None, *, prog_name: str, obj: Any = None) -> int:
    """Run `command` and return its exit code."""
    _print_anything()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result = command.main(args=arguments, prog_name=prog_name, standalone_mode=False, obj=obj)
    except typer.TyperException as error:
        text = error.format_message().strip()
        if text:  # empty where the help was printed already
            report_error("usage", f"{text.rstrip('.')}; see `{_help_of(error, prog_name)}`")
        return ClientExit.USAGE
    except ContractError as error:
        report_error(error.code, error.message)
        return ClientExit.USAGE
    except PicochatError as error:
        report_error(_code_of(error), _with_request_id(error))
        return error_exit(error)
    except OSError as error:
        if error.errno is None:
            raise  # nothing that the operating system said
        where = f"{error.filename}: " if error.filename else ""
        report_error("system", f"{where}{error.strerror}")
        return ClientExit.RUN_FAILED
    except typer.Abort:
        return INTERRUPTED
    return result if isinstance(result, int) and not isinstance(result, bool) else ClientExit.OK


def report_error(code: str, message: str) -> None:
    print(f"error [{code}]: {printable(message)}", file=sys.stderr)


def _print_anything() -> None:
    """Let text of models and servers out on terminals that lack a character: better '?' than a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _help_of(error: typer.TyperException, prog_name: str) -> str:
    context = getattr(error, "ctx", None)
    return f"{getattr(context, 'command_path', prog_name)} --help"


def _code_of(error: PicochatError) -> str:
    return error.code if isinstance(error, ApiError) else error.slug


def _with_request_id(error: PicochatError) -> str:
    request_id = error.request_id if isinstance(error, ApiError) and error.status >= 500 else None
    return f"{error.message} (request {request_id})" if request_id else error.message
