"""`picochat scale plan`: a run spec from a number of parameters, with what it takes. Imports no torch, reads no data."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from picochat_client.terminal import printable
from picochat_contract.configs import AttentionBackend, GateProfile
from picochat_contract.device_classes import GPU_CLASSES
from picochat_contract.errors import Code, SpecError
from picochat_contract.learning_rates import effective_warmup_steps
from picochat_contract.scale_planner import ScalePlan, ScaleRequest, parse_count, plan_scale
from picochat_contract.spec import validated
from rich.console import Console
from rich.table import Table

from picochat_trainer.atomic import write_text

DERIVED = "auto"
_DEVICES = ", ".join(["cpu", *(kind.pattern for kind in GPU_CLASSES)])

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def scale() -> None:
    """Plan a model before anything is paid for."""


@app.command()
def plan(
    target_params: Annotated[
        str | None, typer.Option(help="Parameters of the model: 100m, 2.5b, 524,288.")
    ] = None,
    dataset_tokens: Annotated[
        str | None,
        typer.Option(help="Tokens of the corpus; alone, they choose the model that they train once."),
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Layers, instead of --target-params.")] = None,
    aspect_ratio: Annotated[int, typer.Option(help="Width per layer.")] = 48,
    head_dim: Annotated[int, typer.Option()] = 64,
    vocab_size: Annotated[str, typer.Option()] = "8192",
    context_size: Annotated[str, typer.Option(help="Context window, tokens.")] = "512",
    world_size: Annotated[int, typer.Option(help="Ranks, one per GPU.")] = 1,
    per_device_batch_size: Annotated[
        str, typer.Option(help="Rows per rank and forward pass; auto: as many as fit the device.")
    ] = "8",
    grad_accum_steps: Annotated[
        str, typer.Option(help="Forward passes per step; auto: as many as Step Law's batch takes.")
    ] = DERIVED,
    global_batch_tokens: Annotated[
        str | None, typer.Option(help="Tokens per step over all ranks, instead of --grad-accum-steps.")
    ] = None,
    target_param_data_ratio: Annotated[float, typer.Option(help="Training tokens per parameter.")] = 20.0,
    attn_backend: Annotated[AttentionBackend, typer.Option(help="Kernel of attention.")] = "auto",
    long_run_gate_profile: Annotated[GateProfile, typer.Option(help="Gate of the run.")] = "skill_release",
    device: Annotated[str, typer.Option(help=f"What it is planned for: {_DEVICES}.")] = "h100",
    out: Annotated[Path | None, typer.Option(help="Write the run spec here, as YAML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> int:
    """Derive shape, batch, rates and steps of a run, with its memory and time; nothing is started."""
    request = validated(
        ScaleRequest,
        {
            "target_params": _count(target_params, "target_params"),
            "dataset_tokens": _count(dataset_tokens, "dataset_tokens"),
            "depth": depth,
            "aspect_ratio": aspect_ratio,
            "head_dim": head_dim,
            "vocab_size": _count(vocab_size, "vocab_size"),
            "context_size": _count(context_size, "context_size"),
            "world_size": world_size,
            "per_device_batch_size": _derivable(per_device_batch_size, "per_device_batch_size"),
            "grad_accum_steps": _derivable(grad_accum_steps, "grad_accum_steps"),
            "global_batch_tokens": _count(global_batch_tokens, "global_batch_tokens"),
            "target_param_data_ratio": target_param_data_ratio,
            "attn_backend": attn_backend,
            "gate_profile": long_run_gate_profile,
            "device": device,
        },
    )
    planned = plan_scale(request)
    if out is not None:
        if out.is_dir():
            raise SpecError(
                Code.INVALID_VALUE,
                f"--out: {str(out)!r} is a folder, expected the name of a file",
                param="out",
            )
        write_text(out, _yaml(planned))
    if as_json:
        print(json.dumps(_as_json(planned, out), indent=2))
        return 0
    Console(highlight=False).print(_table(planned))
    for note in planned.notes:
        print(printable(f"note: {note}"))
    print()
    print(_command(planned, out))
    return 0


def _count(text: str | None, param: str) -> int | None:
    return None if text is None else parse_count(text, param)


def _derivable(text: str, param: str) -> int | None:
    return None if text == DERIVED else parse_count(text, param)


def _rows(planned: ScalePlan) -> list[tuple[str, str]]:
    figures, model, base = planned.figures, planned.model, planned.base
    sft, resources, memory = planned.spec["sft"], planned.spec["resources"], planned.figures.memory
    hours = "not known" if figures.hours is None else _time(figures.hours)
    checkpointing = ", blocks computed again" if base.gradient_checkpointing else ""
    corpus = [] if planned.epochs is None else [("epochs over the corpus", f"{planned.epochs:.2f}")]
    return [
        ("parameters", f"{figures.parameters:,}"),
        ("layers x width", f"{model.n_layer} x {model.n_embd}, MLP {model.hidden:,}"),
        ("heads", f"{model.n_head} of {model.head_dim}, {model.num_kv_heads} for keys and values"),
        ("vocabulary, context", f"{figures.vocab_size:,}, {model.sequence_len:,}"),
        (
            "target tokens",
            f"{planned.target_tokens:,} ({planned.request.target_param_data_ratio:g} per parameter)",
        ),
        (
            "planned tokens",
            f"{figures.planned_tokens:,} ({figures.tokens_per_parameter:.1f} per parameter)",
        ),
        *corpus,
        ("tokens per step", f"{figures.tokens_per_step:,} ({planned.batch_source})"),
        ("  by Step Law", f"{planned.law_batch_tokens:,} (arXiv 2503.04715)"),
        ("  by nanochat's rule", f"{planned.nanochat_batch_tokens:,} (B ~ D^0.383, arXiv 2505.13738)"),
        (
            "batch",
            f"{base.device_batch_size} rows x {base.grad_accum_steps} accumulated x "
            f"{resources['nproc_per_node']} rank(s)",
        ),
        ("steps", f"{base.max_steps:,}, {effective_warmup_steps(base):,} of them warm-up"),
        ("learning rate", f"{figures.learning_rate:.2g} (derived, arXiv 2503.04715)"),
        ("weight decay", f"{figures.weight_decay:.2g} (derived, arXiv 2505.13738)"),
        ("SFT", f"{sft['max_steps']:,} steps at {sft['learning_rate']:g}"),
        (
            "memory per device",
            f"{memory.total / 1e9:.1f} of {figures.device_memory_bytes / 1e9:.0f} GB "
            f"({resources.get('distributed_strategy', 'ddp')}{checkpointing})",
        ),
        ("time, estimated", f"{hours} on {resources['nproc_per_node']} x {planned.request.device}"),
    ]


def _time(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _table(planned: ScalePlan) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in _rows(planned):
        table.add_row(*row)
    return table


def _command(planned: ScalePlan, out: Path | None) -> str:
    """What to type next; without a file every value is an option."""
    name = planned.spec["name"]
    if out is not None:
        return f"picochat run tiny --out-dir runs/{name} --spec {shlex.quote(str(out))} --input CORPUS"
    settings = " ".join(
        f"--set {key}={_scalar(value)}" for key, value in _leaves(planned.spec) if key != "name"
    )
    return f"picochat run tiny --out-dir runs/{name} --scale custom --input CORPUS {settings}"


def _leaves(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _leaves(value, f"{above}{name}.") if isinstance(value, dict) else [(f"{above}{name}", value)]
    return found


def _scalar(value: Any) -> str:
    return json.dumps(value)


def _yaml(planned: ScalePlan) -> str:
    lines = [f"# {name}: {value}" for name, value in _rows(planned)]
    note = "# Made by `picochat scale plan`. Add dataset.sources, or give --input. What that gave:"
    return "\n".join([note, *lines, yaml.safe_dump(planned.spec, sort_keys=False)])


def _as_json(planned: ScalePlan, out: Path | None) -> dict[str, Any]:
    figures = planned.figures
    return {
        "parameters": figures.parameters,
        "target_tokens": planned.target_tokens,
        "planned_tokens": figures.planned_tokens,
        "tokens_per_parameter": figures.tokens_per_parameter,
        "epochs": planned.epochs,
        "tokens_per_step": figures.tokens_per_step,
        "tokens_per_step_source": planned.batch_source,
        "law_batch_tokens": planned.law_batch_tokens,
        "nanochat_batch_tokens": planned.nanochat_batch_tokens,
        "learning_rate": figures.learning_rate,
        "weight_decay": figures.weight_decay,
        "memory_bytes": figures.memory.total,
        "memory": asdict(figures.memory),
        "device_memory_bytes": figures.device_memory_bytes,
        "hours": figures.hours,
        "notes": list(planned.notes),
        "spec": planned.spec,
        "command": _command(planned, out),
    }
