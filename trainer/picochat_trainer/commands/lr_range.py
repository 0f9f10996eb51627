"""`picochat train lr-range`: find a learning rate for a model and a text in a hundred steps. No torch at import."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from picochat_contract.batch_size import stage_config
from picochat_contract.configs import BaseConfig
from picochat_contract.exit_codes import ClientExit
from picochat_contract.overrides import with_setting, with_value
from picochat_contract.spec import parse_mapping

from picochat_trainer.commands import train_options as o
from picochat_trainer.commands.token_folder import tokens_for

PRINT_EVERY = 10


def lr_range(
    tokenizer: o.Tokenizer,
    out_dir: Annotated[Path, typer.Option(help="Where lr_range.json, .md and .png go.")],
    corpus: o.Corpus = None,
    tokens: o.Tokens = None,
    corpus_manifest: o.CorpusManifest = None,
    steps: Annotated[int, typer.Option(help="Steps, each with a higher rate.")] = 100,
    min_lr: Annotated[float, typer.Option(help="Rate of the first step.")] = 1e-6,
    max_lr: Annotated[float, typer.Option(help="Rate of the last step.")] = 1e-2,
    divergence_factor: Annotated[
        float, typer.Option(help="Stop where the loss is this many times the lowest smoothed one.")
    ] = 4.0,
    smoothing_beta: Annotated[float, typer.Option(help="Decay per step of the smoothed loss.")] = 0.98,
    scale: Annotated[str, typer.Option(help="Preset whose base model and batch are used.")] = "custom",
    context_size: o.ContextSize = None,
    n_layer: Annotated[int | None, typer.Option()] = None,
    n_head: Annotated[int | None, typer.Option()] = None,
    n_kv_head: Annotated[int | None, typer.Option()] = None,
    n_embd: Annotated[int | None, typer.Option()] = None,
    batch_size: Annotated[int | None, typer.Option(help="Rows per forward pass.")] = None,
    grad_accum_steps: Annotated[
        int | None,
        typer.Option(help="Forward passes per optimizer step; without them they follow from base.max_steps."),
    ] = None,
    global_batch_tokens: Annotated[
        int | None, typer.Option(help="Tokens per optimizer step, instead of --grad-accum-steps.")
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "muon"] | None, typer.Option(help="muon takes the matrices of the blocks.")
    ] = None,
    precision: o.PrecisionOption = None,
    seed: o.Seed = None,
    device: o.DeviceOption = "auto",
    set: Annotated[
        list[str] | None, typer.Option(help="Any key of a spec, such as base.model.qk_norm=false.")
    ] = None,
) -> int:
    """Raise the learning rate step by step until the loss leaves, and recommend one; no weights are kept."""
    # Torch takes seconds to import; `picochat train --help` should not.
    from picochat_trainer.training.lr_range import Point, Sweep, measure

    sweep = Sweep(
        num_steps=steps,
        min_rate=min_lr,
        max_rate=max_lr,
        divergence_factor=divergence_factor,
        smoothing_beta=smoothing_beta,
    )
    config = base_config(
        scale,
        {
            "base.model.sequence_len": context_size,
            "base.model.n_layer": n_layer,
            "base.model.n_head": n_head,
            "base.model.n_kv_head": n_kv_head,
            "base.model.n_embd": n_embd,
            "base.device_batch_size": batch_size,
            "base.grad_accum_steps": grad_accum_steps,
            "base.global_batch_tokens": global_batch_tokens,
            "base.optimizer": optimizer,
            "base.precision": precision,
            "base.seed": seed,
        },
        set or [],
    )
    folder = tokens_for(
        tokens=tokens, corpus=corpus, corpus_manifest=corpus_manifest, tokenizer=tokenizer, out_dir=out_dir
    )

    def show(point: Point) -> None:
        if point.step % PRINT_EVERY == 0:
            print(
                f"step {point.step} of {steps}: learning rate {point.learning_rate:.2e}, loss {point.smoothed_loss:.3f}",
                file=sys.stderr,
            )

    found = measure(
        config, sweep, tokens=folder, tokenizer=tokenizer, device=device, out_dir=out_dir, on_point=show
    )
    print(f"recommended learning rate: {found.recommended:.2g}")
    print(out_dir / "lr_range.md")
    return ClientExit.OK


def base_config(scale: str, options: dict[str, Any], settings: list[str]) -> BaseConfig:
    """The base config of a preset, with options and then `--set` values put over it, for the one process of a sweep."""
    values: dict[str, Any] = {"name": "lr-range", "scale": scale}
    for key, value in options.items():
        if value is not None:
            values = with_value(values, key, value)
    for setting in settings:
        values = with_setting(values, setting)
    return stage_config(parse_mapping(values).base, num_ranks=1)
