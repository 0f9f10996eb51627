"""`picochat sanity preh100`: what can be found out about a machine before a long run on it is paid for. No torch at import."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from picochat_client.terminal import printable
from picochat_contract.configs import AttentionBackend, Device, Precision
from picochat_contract.exit_codes import ClientExit
from picochat_contract.scales import SCALES

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def sanity() -> None:
    """Check this machine before a long run on it is paid for."""


@app.command()
def preh100(
    out_dir: Annotated[Path, typer.Option(help="Where both reports go.")] = Path("runs/preh100-sanity"),
    device: Annotated[Device, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[Precision, typer.Option(help="auto, float32 or bf16.")] = "auto",
    matmul_precision: Annotated[
        Literal["highest", "high", "medium"] | None,
        typer.Option(help="Of float32 matmuls; what torch has without it."),
    ] = None,
    attn_backend: Annotated[
        AttentionBackend, typer.Option(help="auto checks every kernel that the device offers.")
    ] = "auto",
    include_compile: Annotated[
        bool, typer.Option("--include-compile", help="Check torch.compile on a CPU, too.")
    ] = False,
    capacity_scale: Annotated[
        str | None, typer.Option(help=f"Preset that is to be paid for: {', '.join(SCALES)}.")
    ] = None,
    capacity_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows per micro-batch of base instead of the preset's.")
    ] = None,
    capacity_min_free_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the memory that a step has to leave free.")
    ] = 0.10,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="A skipped check fails, too.")] = False,
) -> int:
    """Run every check; exit 2 where one fails. A skipped check is not counted as passed."""
    # Imported here because it needs torch, which `--help` need not wait for.
    suite: Any = importlib.import_module("picochat_trainer.sanity.suite")
    options = suite.Options(
        out_dir=out_dir,
        device=device,
        precision=precision,
        matmul_precision=matmul_precision,
        attn_backend=attn_backend,
        include_compile=include_compile,
        capacity_scale=capacity_scale,
        capacity_batch_size=capacity_batch_size,
        capacity_min_free_fraction=capacity_min_free_fraction,
    )
    report = suite.run_suite(options, say=lambda line: print(printable(line), file=sys.stderr, flush=True))
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        print(printable(report.summary))
        print(out_dir / suite.REPORT_MD)
    return ClientExit.OK if report.is_good(strict=strict) else ClientExit.GATE_BLOCKED
