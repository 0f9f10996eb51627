"""Options that `picochat train base` and `picochat train sft` share, and the config values that they give."""

import shutil
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from picochat_contract import layout
from picochat_contract.config_base import Config
from picochat_contract.configs import (
    AttentionBackend,
    Device,
    DistributedStrategy,
    LrDecay,
    Precision,
)
from picochat_contract.errors import Code, ContractError
from picochat_contract.learning_rates import LAW_WARMUP

from picochat_trainer.atomic import new_folder

# Options that base and SFT share. None leaves the default of the config.
Tokenizer = Annotated[Path, typer.Option(help="tokenizer.json.")]
Corpus = Annotated[
    Path | None, typer.Option(help="UTF-8 text, corpus_manifest.json, or the folder of a built corpus.")
]
Tokens = Annotated[
    Path | None, typer.Option(help="A token store to reuse; without it one is built in <out-dir>/tokens.")
]
CorpusManifest = Annotated[
    Path | None, typer.Option(help="corpus_manifest.json: where documents begin and end.")
]
ContextSize = Annotated[int | None, typer.Option(help="Context window, tokens.")]
MaxSteps = Annotated[int | None, typer.Option(help="Optimizer steps.")]
MaxMinutes = Annotated[float | None, typer.Option(help="Stop after this many minutes of training.")]
BatchSize = Annotated[int | None, typer.Option(help="Rows per process and forward pass.")]
GradAccumSteps = Annotated[
    int | None,
    typer.Option(help="Forward passes per optimizer step; without them base derives them, SFT takes 1."),
]
GlobalBatchTokens = Annotated[
    int | None,
    typer.Option(help="Tokens per optimizer step over all processes, instead of --grad-accum-steps."),
]
LearningRate = Annotated[
    float | None,
    typer.Option(help="Peak learning rate; without it base derives it from model, tokens and batch."),
]
AutoLrScaling = Annotated[
    bool | None, typer.Option(help="Multiply the learning rate by sqrt(rows per step / 8).")
]
LrWarmupSteps = Annotated[
    int | None,
    typer.Option(
        help=f"Steps of linear warm-up; without it {LAW_WARMUP} (arXiv 1910.04209), a fifth of the steps at most."
    ),
]
LrDecayOption = Annotated[LrDecay | None, typer.Option(help="none, linear, cosine or wsd.")]
DecayFraction = Annotated[
    float | None, typer.Option(help="Share of the steps in which wsd decays, at their end.")
]
MinLrRatio = Annotated[float | None, typer.Option(help="Last learning rate as a part of the peak.")]
WeightDecay = Annotated[float | None, typer.Option(help="On matrices only.")]
GradClip = Annotated[float | None, typer.Option(help="Largest gradient norm; 0 is off.")]
ValFraction = Annotated[float | None, typer.Option(help="Part that is held out.")]
EvalEvery = Annotated[int | None, typer.Option(help="Steps between validations.")]
CheckpointEvery = Annotated[int | None, typer.Option(help="Steps between resume checkpoints.")]
KeepCheckpointEvery = Annotated[
    int | None, typer.Option(help="Steps between weights that are kept beside the last and the best ones.")
]
LogEvery = Annotated[int | None, typer.Option(help="Steps between logged losses.")]
Patience = Annotated[int | None, typer.Option(help="Validations without improvement before stopping.")]
MinDelta = Annotated[float | None, typer.Option(help="Smallest improvement that counts.")]
PrecisionOption = Annotated[Precision | None, typer.Option(help="auto, float32 or bf16.")]
Compile = Annotated[Literal["auto", "on", "off"] | None, typer.Option(help="torch.compile.")]
EmaDecay = Annotated[
    float | None,
    typer.Option(help="Decay per step of a running mean of the weights, which is then what is kept."),
]
AttnBackend = Annotated[
    AttentionBackend | None, typer.Option(help="Kernel of attention; auto takes the fastest.")
]
GradientCheckpointing = Annotated[
    bool | None,
    typer.Option(help="Compute blocks again in the backward pass: less memory, a third more work."),
]
LossChunkTokens = Annotated[
    int | None,
    typer.Option(help="Tokens whose logits are held at once; without it as many as suit the device."),
]
TensorboardLogDir = Annotated[
    Path | None,
    typer.Option(help="Write TensorBoard event files here; needs pip install 'picochat[monitor]'."),
]
StopAfterSteps = Annotated[
    int | None, typer.Option(help="Stop here with a resume checkpoint, on the schedule of --max-steps.")
]
ResumeFrom = Annotated[
    Path | None, typer.Option(help="Go on from this resume checkpoint, a folder; it is copied to --out-dir.")
]
Seed = Annotated[int | None, typer.Option()]
SamplePrompt = Annotated[str | None, typer.Option()]
SampleTokens = Annotated[int | None, typer.Option(help="Length of the sample.")]
DeviceOption = Annotated[Device, typer.Option(help="auto, cpu or cuda.")]
Nproc = Annotated[int, typer.Option(help="torchrun processes on each machine, one per GPU.")]
Nnodes = Annotated[int, typer.Option(help="Machines; each is given the same command.")]
RdzvEndpoint = Annotated[
    str | None, typer.Option(help="host:port of the first machine, where they meet; with --nnodes.")
]
Strategy = Annotated[
    DistributedStrategy, typer.Option(help="ddp, or fsdp, which shares weights and optimizer out.")
]
ConfirmPaidLaunch = Annotated[
    bool,
    typer.Option("--confirm-paid-launch", "--yes", help="Start a long run on GPUs without asking."),
]


NAMES: Final = {
    "context_size": "sequence_len",
    "batch_size": "device_batch_size",
    "lr_warmup_steps": "warmup_steps",
    "keep_checkpoint_every": "keep_every",
}
"""Options that a config calls something else."""
_STATE = "training_state.json"


def loop_options(
    *,
    attn_backend: AttnBackend = None,
    sample_prompt: SamplePrompt = None,
    sample_tokens: SampleTokens = None,
    max_steps: MaxSteps = None,
    max_minutes: MaxMinutes = None,
    batch_size: BatchSize = None,
    grad_accum_steps: GradAccumSteps = None,
    learning_rate: LearningRate = None,
    auto_lr_scaling: AutoLrScaling = None,
    lr_warmup_steps: LrWarmupSteps = None,
    lr_decay: LrDecayOption = None,
    decay_fraction: DecayFraction = None,
    min_lr_ratio: MinLrRatio = None,
    weight_decay: WeightDecay = None,
    grad_clip: GradClip = None,
    ema_decay: EmaDecay = None,
    val_fraction: ValFraction = None,
    eval_every: EvalEvery = None,
    checkpoint_every: CheckpointEvery = None,
    keep_checkpoint_every: KeepCheckpointEvery = None,
    log_every: LogEvery = None,
    early_stop_patience: Patience = None,
    early_stop_min_delta: MinDelta = None,
    precision: PrecisionOption = None,
    compile: Compile = None,
    gradient_checkpointing: GradientCheckpointing = None,
    loss_chunk_tokens: LossChunkTokens = None,
    tensorboard_log_dir: TensorboardLogDir = None,
    stop_after_steps: StopAfterSteps = None,
    resume_from: ResumeFrom = None,
    seed: Seed = None,
    device: DeviceOption = "auto",
    nproc_per_node: Nproc = 1,
    nnodes: Nnodes = 1,
    rdzv_endpoint: RdzvEndpoint = None,
    distributed_strategy: Strategy = "ddp",
    confirm_paid_launch: ConfirmPaidLaunch = False,
) -> None:
    """Says what base and SFT share, for `with_loop_options`; it is never called."""


def with_loop_options(command: Callable[..., int]) -> Callable[..., int]:
    """`command` with `loop_options` after its own options; it takes them by name, as `**loop`."""
    own, shared = (signature(function).parameters.values() for function in (command, loop_options))
    named = [parameter for parameter in own if parameter.kind is not Parameter.VAR_KEYWORD]
    command.__signature__ = Signature([*named, *shared])  # type: ignore[attr-defined]  # where Typer looks
    return command


def settings_of(config: type[Config], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that the user gave and `config` has, under its names."""
    settings = {NAMES.get(name, name): value for name, value in options.items() if value is not None}
    settings["tensorboard"] = options["tensorboard_log_dir"] is not None
    return {name: value for name, value in settings.items() if name in config.model_fields}


def board_folder(stage_dir: Path, folder: Path) -> Path:
    """Where the event files go that are wanted in `folder`: below it, and never around what else the stage writes."""
    around = stage_dir.resolve().is_relative_to(folder.resolve())
    return (folder / layout.TENSORBOARD if around else folder).resolve()


def take_up(resume_from: Path | None, stage_dir: Path, param: str = "resume_from") -> None:
    """Copy the resume checkpoint, or that of the folder that holds it, to where the stage looks for its own.

    The stage refuses one that is of another training, and names the difference.
    """
    if resume_from is None:
        return
    inside = resume_from / layout.RESUME_CHECKPOINT
    source, own = inside if inside.is_dir() else resume_from, stage_dir / layout.RESUME_CHECKPOINT
    if not (source / _STATE).is_file():
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"--{param.replace('_', '-')}: {str(resume_from)!r} is no resume checkpoint (it has no {_STATE}); give the folder "
            f"{layout.RESUME_CHECKPOINT} of a training that was stopped",
            param=param,
        )
    if own.resolve() == source.resolve():
        return
    if own.exists():
        raise ContractError(
            Code.INVALID_VALUE,
            f"--{param.replace('_', '-')}: {stage_dir} already holds a resume checkpoint of its own, which it goes on from; leave the "
            "option out, or give another --out-dir",
            param=param,
        )
    with new_folder(own) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
