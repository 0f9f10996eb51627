"""`python -m picochat_trainer serve|chat|generate`: a checkpoint at work on this machine.

`picochat serve|chat|generate` start these (`picochat_trainer.commands.chat`). Bad input exits 2 with a line that says
what to do.
"""

import ipaddress
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from picochat_contract.configs import Device, Precision
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import StageExit

from picochat_trainer.inference.answering import Defaults
from picochat_trainer.inference.conversation import Conversation, converse, printable, write_pieces
from picochat_trainer.inference.engine import Engine
from picochat_trainer.inference.sampling import SamplingParams
from picochat_trainer.inference.server import ServerSettings, create_app
from picochat_trainer.training.hardware import resolve_device

INTERRUPTED = 130  # 128 + SIGINT

CheckpointOption = Annotated[
    Path, typer.Option("--checkpoint", help="Checkpoint folder, such as runs/x/sft/checkpoint.")
]
TokenizerOption = Annotated[Path, typer.Option("--tokenizer", help="The tokenizer.json of the same run.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="auto, cpu or cuda.")]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="auto: bf16 on CUDA, float32 on the CPU.")
]
TemperatureOption = Annotated[float, typer.Option("--temperature", help="0 takes the most likely token.")]
TopKOption = Annotated[int, typer.Option("--top-k", help="Sample among this many tokens; 0: all.")]
TopPOption = Annotated[float, typer.Option("--top-p", help="Sample among the tokens that sum to this.")]
PenaltyOption = Annotated[
    float, typer.Option("--repetition-penalty", help="Over 1 makes repeated tokens less likely.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Equal seeds give equal answers.")]

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def program() -> None:
    """Use a checkpoint on this machine."""


@app.command()
def serve(
    checkpoint: CheckpointOption,
    tokenizer: TokenizerOption,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    model_name: Annotated[str, typer.Option(help="The name that requests give as `model`.")] = "picochat",
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the key clients must send.")
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Where a request names no limit.")] = 256,
    temperature: TemperatureOption = 0.8,
    top_k: TopKOption = 20,
    top_p: TopPOption = 1.0,
    repetition_penalty: PenaltyOption = 1.0,
) -> None:
    """Serve a checkpoint in OpenAI's API."""
    api_key = _api_key(api_key_env)
    if api_key is None and not _is_loopback(host):
        raise ContractError(
            Code.INVALID_VALUE,
            f"--host {host}: expected a loopback address without a key, since anybody who reaches the port could "
            "use the model; set a variable and name it with --api-key-env",
            param="--host",
        )
    defaults = Defaults(
        max_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
    )
    engine = _load(checkpoint, tokenizer, device, precision)
    settings = ServerSettings(host=host, model_name=model_name, api_key=api_key, defaults=defaults)
    config = uvicorn.Config(
        create_app(engine, settings),
        host=host,
        port=port,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    if port:
        print(f"OpenAI base URL: http://{host}:{port}/v1, model: {model_name}", file=sys.stderr)
    uvicorn.Server(config).run()


@app.command()
def chat(
    checkpoint: CheckpointOption,
    tokenizer: TokenizerOption,
    prompt: Annotated[str | None, typer.Option(help="Ask this once and exit.")] = None,
    system: Annotated[str | None, typer.Option(help="Instruction before the first message.")] = None,
    temperature: TemperatureOption = 0.8,
    top_k: TopKOption = 20,
    top_p: TopPOption = 1.0,
    repetition_penalty: PenaltyOption = 1.0,
    seed: SeedOption = 42,
    max_new: Annotated[int, typer.Option("--max-new", "--max-new-tokens", help="Tokens per answer.")] = 120,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Talk to a checkpoint."""
    params = SamplingParams(
        max_new_tokens=max_new,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    conversation = Conversation(_load(checkpoint, tokenizer, device, precision), params, system=system)
    if prompt is not None:
        write_pieces(conversation.ask(prompt))
    else:
        converse(conversation)


@app.command()
def generate(
    checkpoint: CheckpointOption,
    tokenizer: TokenizerOption,
    prompt: Annotated[str, typer.Option(help="The text to continue; empty starts a document.")],
    temperature: TemperatureOption = 0.8,
    top_k: TopKOption = 20,
    top_p: TopPOption = 1.0,
    repetition_penalty: PenaltyOption = 1.0,
    seed: SeedOption = 42,
    max_new: Annotated[int, typer.Option("--max-new", "--max-new-tokens", help="Tokens to add.")] = 100,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
) -> None:
    """Continue a prompt; prints prompt and continuation."""
    params = SamplingParams(
        max_new_tokens=max_new,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    engine = _load(checkpoint, tokenizer, device, precision)
    prompt_ids = [engine.tokenizer.bos_id, *engine.tokenizer.encode(prompt)]
    print(printable(prompt), end="")
    write_pieces(engine.stream(prompt_ids, replace(params, stop_ids=engine.control_ids)))


def main(argv: list[str]) -> int:
    """Run a command and return its exit code."""
    command: Any = typer.main.get_command(app)
    try:
        command.main(args=argv, prog_name="picochat", standalone_mode=False)
    except typer.TyperException as error:
        message = error.format_message().strip()
        return _refuse("usage", f"{message} See `picochat {argv[0] if argv else ''} --help`.")
    except ContractError as error:
        return _refuse(error.code, error.message)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return StageExit.DONE


def _refuse(code: str, message: str) -> int:
    print(f"error [{code}]: {message}", file=sys.stderr)
    return StageExit.BAD_INPUT


def _load(checkpoint: Path, tokenizer: Path, device: Device, precision: Precision) -> Engine:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return Engine.load(checkpoint, tokenizer, resolve_device(device, 0), precision)


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if not key:
        raise ContractError(
            Code.INVALID_VALUE,
            f"--api-key-env {variable}: expected this environment variable to hold the key, it is empty or not set",
            param="--api-key-env",
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
