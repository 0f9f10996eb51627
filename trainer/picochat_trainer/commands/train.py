"""`picochat train base` and `picochat train sft`: one stage on files of one's own. No torch at import."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from picochat_contract import layout
from picochat_contract.config_base import Config
from picochat_contract.configs import BaseConfig, Device, Precision, Resources, SftConfig
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import validated
from picochat_contract.stages import StageName

from picochat_trainer.commands.display import exit_code, explain_failure, live_display, print_stages
from picochat_trainer.commands.lr_range import lr_range
from picochat_trainer.commands.token_folder import manifest_of, tokens_for
from picochat_trainer.local_run import LocalRun

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.command("lr-range")(lr_range)

# Options that base and SFT share. None leaves the default of the config.
Tokenizer = Annotated[Path, typer.Option(help="tokenizer.json.")]
MaxSteps = Annotated[int | None, typer.Option(help="Optimizer steps.")]
MaxMinutes = Annotated[float | None, typer.Option(help="Stop after this many minutes of training.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows per process and forward pass.")]
GradAccumSteps = Annotated[int | None, typer.Option(help="Forward passes per optimizer step.")]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
AutoLrScaling = Annotated[
    bool | None, typer.Option(help="Multiply the learning rate by sqrt(rows per step / 8).")
]
LrWarmupSteps = Annotated[int | None, typer.Option(help="Steps of linear warm-up.")]
LrDecay = Annotated[Literal["none", "linear", "cosine"] | None, typer.Option(help="none, linear or cosine.")]
MinLrRatio = Annotated[float | None, typer.Option(help="Last learning rate as a part of the peak.")]
WeightDecay = Annotated[float | None, typer.Option(help="On matrices only.")]
GradClip = Annotated[float | None, typer.Option(help="Largest gradient norm; 0 is off.")]
ValFraction = Annotated[float | None, typer.Option(help="Part that is held out.")]
EvalEvery = Annotated[int | None, typer.Option(help="Steps between validations.")]
CheckpointEvery = Annotated[int | None, typer.Option(help="Steps between resume checkpoints.")]
LogEvery = Annotated[int | None, typer.Option(help="Steps between logged losses.")]
Patience = Annotated[int | None, typer.Option(help="Validations without improvement before stopping.")]
MinDelta = Annotated[float | None, typer.Option(help="Smallest improvement that counts.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="auto, float32 or bf16.")]
Compile = Annotated[Literal["auto", "on", "off"] | None, typer.Option(help="torch.compile.")]
Seed = Annotated[int | None, typer.Option()]
SampleTokens = Annotated[int | None, typer.Option(help="Length of the sample.")]
DeviceOption = Annotated[Device, typer.Option(help="auto, cpu or cuda.")]
Nproc = Annotated[int, typer.Option(help="torchrun processes, one per GPU.")]


@app.callback()
def train() -> None:
    """Train one stage: base or sft; or find a learning rate."""


@app.command()
def base(
    tokenizer: Tokenizer,
    out_dir: Annotated[Path, typer.Option(help="Where checkpoints and reports go.")],
    corpus: Annotated[
        Path | None, typer.Option(help="UTF-8 text, corpus_manifest.json, or the folder of a built corpus.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="A token store to reuse; without it one is built in <out-dir>/tokens.")
    ] = None,
    corpus_manifest: Annotated[
        Path | None, typer.Option(help="corpus_manifest.json: where documents begin and end.")
    ] = None,
    dataset_mode: Annotated[
        Literal["memory", "sharded", "packed"] | None, typer.Option(help="How the tokens are read.")
    ] = None,
    split_mode: Annotated[
        Literal["document", "window"] | None, typer.Option(help="How text is held out.")
    ] = None,
    context_size: Annotated[int | None, typer.Option(help="Context window, tokens.")] = None,
    n_layer: Annotated[int | None, typer.Option()] = None,
    n_head: Annotated[int | None, typer.Option()] = None,
    n_kv_head: Annotated[int | None, typer.Option()] = None,
    n_embd: Annotated[int | None, typer.Option()] = None,
    dropout: Annotated[float | None, typer.Option()] = None,
    tie_embeddings: Annotated[bool | None, typer.Option()] = None,
    qk_norm: Annotated[bool | None, typer.Option()] = None,
    parallel_residual: Annotated[bool | None, typer.Option()] = None,
    scaled_residual_init: Annotated[bool | None, typer.Option()] = None,
    canary_count: Annotated[int | None, typer.Option(help="Secrets planted to measure memorization.")] = None,
    optimizer: Annotated[
        Literal["adamw", "muon"] | None,
        typer.Option(help="muon takes the matrices of the blocks, AdamW the rest."),
    ] = None,
    attn_backend: Annotated[
        Literal["auto", "flash", "efficient", "math", "cudnn"] | None,
        typer.Option(help="Kernel of attention; auto takes the fastest."),
    ] = None,
    loss_spike_rollback: Annotated[
        bool | None, typer.Option(help="Go back to the last good weights where the loss jumps; one process.")
    ] = None,
    sample_prompt: Annotated[str | None, typer.Option()] = None,
    sample_tokens: SampleTokens = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    grad_accum_steps: GradAccumSteps = None,
    learning_rate: LearningRate = None,
    auto_lr_scaling: AutoLrScaling = None,
    lr_warmup_steps: LrWarmupSteps = None,
    lr_decay: LrDecay = None,
    min_lr_ratio: MinLrRatio = None,
    weight_decay: WeightDecay = None,
    grad_clip: GradClip = None,
    val_fraction: ValFraction = None,
    eval_every: EvalEvery = None,
    checkpoint_every: CheckpointEvery = None,
    log_every: LogEvery = None,
    early_stop_patience: Patience = None,
    early_stop_min_delta: MinDelta = None,
    precision: PrecisionOption = None,
    compile: Compile = None,
    seed: Seed = None,
    device: DeviceOption = "auto",
    nproc_per_node: Nproc = 1,
) -> int:
    """Pretrain a GPT from nothing on a text."""
    options = dict(locals())
    model = {
        "sequence_len": context_size,
        **_only(
            options,
            "n_layer n_head n_kv_head n_embd dropout tie_embeddings qk_norm parallel_residual scaled_residual_init",
        ),
    }
    config = validated(
        BaseConfig,
        {
            "model": _given(model),
            **_given(_optim(options)),
            **_given(
                _only(
                    options,
                    "split_mode dataset_mode canary_count optimizer attn_backend "
                    "loss_spike_rollback sample_prompt sample_tokens",
                )
            ),
        },
    )
    folder = tokens_for(
        tokens=tokens, corpus=corpus, corpus_manifest=corpus_manifest, tokenizer=tokenizer, out_dir=out_dir
    )
    paths = {
        layout.TOKENS_DIR: folder,
        layout.BASE_DIR: out_dir,
        # That of the output folder, if it has one, may be of another corpus; a store holds none.
        layout.CORPUS_MANIFEST: corpus_manifest or manifest_of(corpus) or folder / layout.CORPUS_MANIFEST,
        **_tokenizer_paths(tokenizer),
    }
    return _train(StageName.BASE, config, out_dir, paths, device, nproc_per_node)


@app.command()
def sft(
    input: Annotated[Path, typer.Option(help="Chat JSONL.")],
    tokenizer: Tokenizer,
    checkpoint: Annotated[Path, typer.Option(help="Base checkpoint folder, such as base/best_checkpoint.")],
    out_dir: Annotated[Path, typer.Option(help="Where the checkpoint and reports go.")],
    sampling: Annotated[
        Literal["uniform", "category_sqrt", "category_balanced"] | None,
        typer.Option(help="How often each category is drawn."),
    ] = None,
    sample_prompt: Annotated[str | None, typer.Option()] = None,
    sample_tokens: SampleTokens = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    grad_accum_steps: GradAccumSteps = None,
    learning_rate: LearningRate = None,
    auto_lr_scaling: AutoLrScaling = None,
    lr_warmup_steps: LrWarmupSteps = None,
    lr_decay: LrDecay = None,
    min_lr_ratio: MinLrRatio = None,
    weight_decay: WeightDecay = None,
    grad_clip: GradClip = None,
    val_fraction: ValFraction = None,
    eval_every: EvalEvery = None,
    checkpoint_every: CheckpointEvery = None,
    log_every: LogEvery = None,
    early_stop_patience: Patience = None,
    early_stop_min_delta: MinDelta = None,
    precision: PrecisionOption = None,
    compile: Compile = None,
    seed: Seed = None,
    device: DeviceOption = "auto",
    nproc_per_node: Nproc = 1,
) -> int:
    """Fine-tune a base checkpoint on chat rows."""
    options = dict(locals())
    values = {**_optim(options), **_only(options, "sampling sample_prompt sample_tokens")}
    paths = {
        layout.CHAT: input,
        layout.BASE_BEST: checkpoint,
        layout.SFT_DIR: out_dir,
        **_tokenizer_paths(tokenizer),
    }
    config = validated(SftConfig, _given(values))
    return _train(StageName.SFT, config, out_dir, paths, device, nproc_per_node)


def _optim(options: Mapping[str, Any]) -> dict[str, Any]:
    """The shared options under the names of `OptimConfig`."""
    return {
        "device_batch_size": options["batch_size"],
        "warmup_steps": options["lr_warmup_steps"],
        **_only(
            options,
            "max_steps max_minutes grad_accum_steps learning_rate auto_lr_scaling lr_decay min_lr_ratio weight_decay grad_clip "
            "val_fraction eval_every checkpoint_every log_every early_stop_patience early_stop_min_delta "
            "precision compile seed",
        ),
    }


def _only(options: Mapping[str, Any], names: str) -> dict[str, Any]:
    return {name: options[name] for name in names.split()}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the options that the user left out."""
    return {name: value for name, value in values.items() if value is not None}


def _tokenizer_paths(tokenizer: Path) -> dict[str, Path]:
    file = tokenizer / layout.TOKENIZER if tokenizer.is_dir() else tokenizer
    return {layout.TOKENIZER: file, layout.TOKENIZER_CONFIG: file.with_name(layout.TOKENIZER_CONFIG)}


def _train(
    stage: StageName,
    config: Config,
    out_dir: Path,
    paths: Mapping[str, Path],
    device: Device,
    nproc_per_node: int,
) -> int:
    with live_display(out_dir.name, [stage]) as on_event:
        rows = LocalRun(
            run_dir=out_dir,
            stages={stage: config},
            resources=Resources(device=device, nproc_per_node=nproc_per_node),
            on_event=on_event,
            paths={name: str(path.absolute()) for name, path in paths.items()},
            reuse=False,
        ).run()
    print_stages(rows)
    code = exit_code(rows)
    if code != ClientExit.OK:
        explain_failure(rows)
        return code
    print(out_dir / "report.md")
    return code
