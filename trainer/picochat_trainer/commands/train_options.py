"""Options that `picochat train base` and `picochat train sft` share, and the config values that they give."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from picochat_contract import layout
from picochat_contract.configs import (
    AttentionBackend,
    Device,
    DistributedStrategy,
    LrDecay,
    Precision,
    Resources,
)
from picochat_contract.errors import Code, ContractError
from picochat_contract.spec import validated

from picochat_trainer.atomic import new_folder

# Options that base and SFT share. None leaves the default of the config.
Tokenizer = Annotated[Path, typer.Option(help="tokenizer.json.")]
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
LrWarmupSteps = Annotated[int | None, typer.Option(help="Steps of linear warm-up.")]
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
TensorboardLogDir = Annotated[Path | None, typer.Option(help="Write TensorBoard event files here.")]
StopAfterSteps = Annotated[
    int | None, typer.Option(help="Stop here with a resume checkpoint, on the schedule of --max-steps.")
]
ResumeFrom = Annotated[
    Path | None, typer.Option(help="Go on from this resume checkpoint, a folder; it is copied to --out-dir.")
]
Seed = Annotated[int | None, typer.Option()]
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


_SHARED = (
    "max_steps max_minutes grad_accum_steps learning_rate auto_lr_scaling lr_decay decay_fraction min_lr_ratio weight_decay "
    "grad_clip ema_decay val_fraction eval_every checkpoint_every log_every early_stop_patience early_stop_min_delta precision "
    "compile attn_backend gradient_checkpointing loss_chunk_tokens stop_after_steps seed"
)
_STATE = "training_state.json"


def optim_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The shared options under the names of `OptimConfig`."""
    return {
        "device_batch_size": options["batch_size"],
        "warmup_steps": options["lr_warmup_steps"],
        "keep_every": options["keep_checkpoint_every"],
        "tensorboard": True if options["tensorboard_log_dir"] else None,
        **only(options, _SHARED),
    }


def resources_of(options: Mapping[str, Any]) -> Resources:
    """Raise SpecError where several machines have no place to meet."""
    names = "device nproc_per_node nnodes rdzv_endpoint distributed_strategy"
    return validated(Resources, only(options, names))


def moved_folders(stage_dir: str, options: Mapping[str, Any]) -> dict[str, Path]:
    """Places of run-folder names that the options put elsewhere."""
    folder = options["tensorboard_log_dir"]
    return {f"{stage_dir}/{layout.TENSORBOARD}": folder} if folder else {}


def only(options: Mapping[str, Any], names: str) -> dict[str, Any]:
    return {name: options[name] for name in names.split()}


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without the options that the user left out."""
    return {name: value for name, value in values.items() if value is not None}


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
