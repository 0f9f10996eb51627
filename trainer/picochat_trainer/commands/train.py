"""`picochat train base` and `picochat train sft`: one stage on files of one's own. No torch at import."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer
from picochat_contract import layout
from picochat_contract.batch_size import stage_config
from picochat_contract.config_base import Config
from picochat_contract.configs import BaseSection, Resources, SftConfig
from picochat_contract.exit_codes import ClientExit
from picochat_contract.spec import validated
from picochat_contract.stages import StageName

from picochat_trainer.commands import train_options as o
from picochat_trainer.commands.display import exit_code, explain_failure, live_display, print_stages
from picochat_trainer.commands.dry_run import say
from picochat_trainer.commands.lr_range import lr_range
from picochat_trainer.commands.token_folder import manifest_of, tokens_for
from picochat_trainer.commands.train_options import (
    given,
    moved_folders,
    only,
    optim_values,
    resources_of,
    take_up,
)
from picochat_trainer.local_run import LocalRun
from picochat_trainer.machines import together
from picochat_trainer.paid_launch import confirm_training, model_of

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)
app.command("lr-range")(lr_range)

_MODEL = (
    "n_layer n_head n_kv_head n_embd mlp_hidden norm_type position_encoding activation logit_softcap dropout tie_embeddings "
    "qk_norm parallel_residual scaled_residual_init"
)
_BASE = (
    "split_mode dataset_mode canary_count optimizer loss_spike_rollback document_mask sample_prompt sample_tokens "
    "global_batch_tokens"
)


@app.callback()
def train() -> None:
    """Train one stage: base or sft; or find a learning rate."""


@app.command()
def base(
    tokenizer: o.Tokenizer,
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
    mlp_hidden: Annotated[int | None, typer.Option(help="Hidden width of the MLP.")] = None,
    norm_type: Annotated[
        Literal["rmsnorm", "layernorm"] | None, typer.Option(help="rmsnorm or layernorm.")
    ] = None,
    position_encoding: Annotated[
        Literal["rope", "learned"] | None, typer.Option(help="rope, or a learned table as in GPT-2.")
    ] = None,
    activation: Annotated[
        Literal["swiglu", "gelu", "relu2"] | None, typer.Option(help="Of the MLP: swiglu, gelu or relu2.")
    ] = None,
    logit_softcap: Annotated[
        float | None, typer.Option(help="Logits become cap x tanh(logits / cap); 0 is off.")
    ] = None,
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
    attn_backend: o.AttnBackend = None,
    loss_spike_rollback: Annotated[
        bool | None, typer.Option(help="Go back to the last good weights where the loss jumps.")
    ] = None,
    document_mask: Annotated[
        bool | None, typer.Option(help="Attention does not look over the beginning of a document.")
    ] = None,
    sample_prompt: Annotated[str | None, typer.Option()] = None,
    sample_tokens: o.SampleTokens = None,
    max_steps: o.MaxSteps = None,
    max_minutes: o.MaxMinutes = None,
    batch_size: o.BatchSize = None,
    grad_accum_steps: o.GradAccumSteps = None,
    global_batch_tokens: o.GlobalBatchTokens = None,
    learning_rate: o.LearningRate = None,
    auto_lr_scaling: o.AutoLrScaling = None,
    lr_warmup_steps: o.LrWarmupSteps = None,
    lr_decay: o.LrDecayOption = None,
    decay_fraction: o.DecayFraction = None,
    min_lr_ratio: o.MinLrRatio = None,
    weight_decay: o.WeightDecay = None,
    grad_clip: o.GradClip = None,
    ema_decay: o.EmaDecay = None,
    val_fraction: o.ValFraction = None,
    eval_every: o.EvalEvery = None,
    checkpoint_every: o.CheckpointEvery = None,
    keep_checkpoint_every: o.KeepCheckpointEvery = None,
    log_every: o.LogEvery = None,
    early_stop_patience: o.Patience = None,
    early_stop_min_delta: o.MinDelta = None,
    precision: o.PrecisionOption = None,
    compile: o.Compile = None,
    gradient_checkpointing: o.GradientCheckpointing = None,
    loss_chunk_tokens: o.LossChunkTokens = None,
    tensorboard_log_dir: o.TensorboardLogDir = None,
    stop_after_steps: o.StopAfterSteps = None,
    resume_from: o.ResumeFrom = None,
    seed: o.Seed = None,
    device: o.DeviceOption = "auto",
    nproc_per_node: o.Nproc = 1,
    nnodes: o.Nnodes = 1,
    rdzv_endpoint: o.RdzvEndpoint = None,
    distributed_strategy: o.Strategy = "ddp",
    confirm_paid_launch: o.ConfirmPaidLaunch = False,
) -> int:
    """Pretrain a GPT from nothing on a text."""
    options = dict(locals())
    model = {"sequence_len": context_size, **only(options, _MODEL)}
    values = {**optim_values(options), **only(options, _BASE)}
    resources = resources_of(options)
    section = validated(BaseSection, {"model": given(model), **given(values)})
    config = stage_config(section, resources.num_ranks)

    def lead() -> int:
        confirm_training(
            config, config.model, tokenizer, resources, out_dir, confirmed=confirm_paid_launch, say=say
        )
        folder = tokens_for(
            tokens=tokens,
            corpus=corpus,
            corpus_manifest=corpus_manifest,
            tokenizer=tokenizer,
            out_dir=out_dir,
        )
        paths = {
            layout.TOKENS_DIR: folder,
            layout.BASE_DIR: out_dir,
            # That of the output folder, if it has one, may be of another corpus; a store holds none.
            layout.CORPUS_MANIFEST: corpus_manifest or manifest_of(corpus) or folder / layout.CORPUS_MANIFEST,
            **_tokenizer_paths(tokenizer),
            **moved_folders(layout.BASE_DIR, options),
        }
        take_up(resume_from, out_dir)
        return _train(StageName.BASE, config, out_dir, paths, resources)

    return together(out_dir, resources, lead, say)


@app.command()
def sft(
    input: Annotated[Path, typer.Option(help="Chat JSONL.")],
    tokenizer: o.Tokenizer,
    checkpoint: Annotated[Path, typer.Option(help="Base checkpoint folder, such as base/best_checkpoint.")],
    out_dir: Annotated[Path, typer.Option(help="Where the checkpoint and reports go.")],
    sampling: Annotated[
        Literal["uniform", "category_sqrt", "category_balanced"] | None,
        typer.Option(help="How often each category is drawn."),
    ] = None,
    attn_backend: o.AttnBackend = None,
    sample_prompt: Annotated[str | None, typer.Option()] = None,
    sample_tokens: o.SampleTokens = None,
    max_steps: o.MaxSteps = None,
    max_minutes: o.MaxMinutes = None,
    batch_size: o.BatchSize = None,
    grad_accum_steps: o.GradAccumSteps = None,
    learning_rate: o.LearningRate = None,
    auto_lr_scaling: o.AutoLrScaling = None,
    lr_warmup_steps: o.LrWarmupSteps = None,
    lr_decay: o.LrDecayOption = None,
    decay_fraction: o.DecayFraction = None,
    min_lr_ratio: o.MinLrRatio = None,
    weight_decay: o.WeightDecay = None,
    grad_clip: o.GradClip = None,
    ema_decay: o.EmaDecay = None,
    val_fraction: o.ValFraction = None,
    eval_every: o.EvalEvery = None,
    checkpoint_every: o.CheckpointEvery = None,
    keep_checkpoint_every: o.KeepCheckpointEvery = None,
    log_every: o.LogEvery = None,
    early_stop_patience: o.Patience = None,
    early_stop_min_delta: o.MinDelta = None,
    precision: o.PrecisionOption = None,
    compile: o.Compile = None,
    gradient_checkpointing: o.GradientCheckpointing = None,
    loss_chunk_tokens: o.LossChunkTokens = None,
    tensorboard_log_dir: o.TensorboardLogDir = None,
    stop_after_steps: o.StopAfterSteps = None,
    resume_from: o.ResumeFrom = None,
    seed: o.Seed = None,
    device: o.DeviceOption = "auto",
    nproc_per_node: o.Nproc = 1,
    nnodes: o.Nnodes = 1,
    rdzv_endpoint: o.RdzvEndpoint = None,
    distributed_strategy: o.Strategy = "ddp",
    confirm_paid_launch: o.ConfirmPaidLaunch = False,
) -> int:
    """Fine-tune a base checkpoint on chat rows."""
    options = dict(locals())
    values = {**optim_values(options), **only(options, "sampling sample_prompt sample_tokens")}
    paths = {
        layout.CHAT: input,
        layout.BASE_BEST: checkpoint,
        layout.SFT_DIR: out_dir,
        **_tokenizer_paths(tokenizer),
        **moved_folders(layout.SFT_DIR, options),
    }
    config, resources = validated(SftConfig, given(values)), resources_of(options)

    def lead() -> int:
        model = model_of(checkpoint)
        confirm_training(config, model, tokenizer, resources, out_dir, confirmed=confirm_paid_launch, say=say)
        take_up(resume_from, out_dir)
        return _train(StageName.SFT, config, out_dir, paths, resources)

    return together(out_dir, resources, lead, say)


def _tokenizer_paths(tokenizer: Path) -> dict[str, Path]:
    file = tokenizer / layout.TOKENIZER if tokenizer.is_dir() else tokenizer
    return {layout.TOKENIZER: file, layout.TOKENIZER_CONFIG: file.with_name(layout.TOKENIZER_CONFIG)}


def _train(
    stage: StageName, config: Config, out_dir: Path, paths: Mapping[str, Path], resources: Resources
) -> int:
    with live_display(out_dir.name, [stage]) as on_event:
        rows = LocalRun(
            run_dir=out_dir,
            stages={stage: config},
            resources=resources,
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
