"""Preflight rules about the plan of base pretraining: tokens, batch, learning rate, ranks."""

import re
from typing import Final

from picochat_contract.configs import OptimConfig
from picochat_contract.plan_figures import uses_bf16, uses_gpu
from picochat_contract.preflight_rules import (
    NO_ROOM,
    Condition,
    Measured,
    Rule,
    Subject,
    above,
    below,
    equal,
    not_measured,
)
from picochat_contract.stages import StageName

LONG: Final = Condition.LONG
RELEASE: Final = Condition.RELEASE
FA3: Final = "flash_attn_interface"  # Python module of FlashAttention 3
HOPPER: Final = 9  # major compute capability
FUSED: Final = ("flash", "cudnn", "fa3")
ATTENTION_NEEDS: Final = (
    "needs cuda",
    "needs bf16",
    "cannot mask documents",
    "needs dropout 0",
    "needs hopper",
    "needs its package",
    "needs another head size",
)
RELEASE_TOKENS_PER_PARAMETER: Final = 18.0  # 0.9 x 20


def _attention(s: Subject) -> Measured:
    for stage in (s.plan.base, *([s.plan.sft] if s.runs(StageName.SFT) else [])):
        problem = _attention_problem(stage, s)
        if problem is not None:
            said = f"{stage.attn_backend} attention on {s.budget.device}"
            return Measured(value=problem, message=f"{said}, heads of {s.plan.base.model.head_dim}")
    return Measured(value="fits", message=f"{s.plan.base.attn_backend} attention on {s.budget.device}")


def _attention_problem(config: OptimConfig, s: Subject) -> str | None:
    """What the backend lacks here; None where it can run. The same conditions as the trainer's `kernels.py`."""
    backend, model, machine = config.attn_backend, s.plan.base.model, s.facts.machine
    if backend in ("auto", "math"):
        return None
    if not uses_gpu(s.plan, machine):
        return "needs cuda"
    gpu = machine.gpus[0]
    if backend in FUSED and not (uses_bf16(s.plan, machine) and gpu.has_bf16):
        return "needs bf16"
    if backend in FUSED and s.plan.base.document_mask and config is s.plan.base:
        return "cannot mask documents"
    if backend in ("flex", "fa3") and model.dropout:
        return "needs dropout 0"
    if backend == "fa3" and gpu.capability != HOPPER:
        return "needs hopper"
    if backend == "fa3" and FA3 not in machine.packages:
        return "needs its package"
    return None if _head_fits(backend, model.head_dim, gpu.capability) else "needs another head size"


def _head_fits(backend: str, head_dim: int, capability: int) -> bool:
    if backend == "flex":
        return head_dim >= 16
    if backend == "cudnn":
        return head_dim % 8 == 0 and head_dim <= (256 if capability == HOPPER else 128)
    return backend not in FUSED or head_dim <= 256


def _rollback(s: Subject) -> Measured:
    b = s.budget
    if not s.plan.base.loss_spike_rollback:
        return Measured(value=0.0, message="loss-spike rollback is off")
    left = b.device_memory_bytes - (b.base_memory_bytes - b.base_snapshot_bytes)
    share = b.base_snapshot_bytes / left if left > 0 else NO_ROOM
    return Measured(
        value=share,
        message=f"rollback keeps {b.base_snapshot_bytes / 1e9:.1f} GB on each of {b.ddp_world_size} rank(s); the rest of "
        f"training leaves {max(0, left) / 1e9:.1f} GB",
    )


def _muon(s: Subject) -> Measured:
    if s.plan.base.optimizer != "muon":
        return Measured(value=0.0, message="Muon is off")
    return Measured(
        value=s.budget.muon_share,
        message=f"orthogonalisation is {s.budget.muon_share:.1%} of a step's operations on the busiest of "
        f"{s.budget.ddp_world_size} rank(s)",
    )


def _fsdp(s: Subject) -> Measured:
    resources = s.plan.resources
    alone = resources.distributed_strategy == "fsdp" and resources.num_ranks == 1
    return Measured(
        value="alone" if alone else resources.distributed_strategy,
        message=f"{resources.distributed_strategy} on {resources.num_ranks} rank(s)",
    )


def _scaling_ranks(s: Subject) -> Measured:
    ranks, what = s.budget.ddp_world_size, "automatic scaling of learning rates"
    is_on = s.plan.base.auto_lr_scaling or s.plan.sft.auto_lr_scaling
    return Measured(
        value=ranks if is_on else 1, message=f"{what} on {ranks} rank(s)" if is_on else f"{what} is off"
    )


def _horizon(s: Subject) -> Measured:
    b = s.budget
    return Measured(
        value=b.planned_to_target_ratio,
        message=f"{b.base_planned_tokens:,} planned tokens, {b.planned_to_target_ratio:.2f} of the target "
        f"{b.target_training_tokens:,} ({b.target_param_data_ratio:g} per parameter, {b.estimated_parameters:,} of them)",
    )


def _model_fit(s: Subject) -> Measured:
    epochs = s.budget.target_training_epochs
    said = (
        "the corpus has no text"
        if epochs is None
        else f"the target takes {_times(epochs)} epochs of this corpus"
    )
    return Measured(value=epochs, message=said)


def _exposure(s: Subject) -> Measured:
    epochs = s.budget.estimated_base_epochs
    said = (
        "the corpus has no text" if epochs is None else f"{_times(epochs)} epochs of the corpus are planned"
    )
    return Measured(value=epochs, message=said)


def _batch(s: Subject) -> Measured:
    b = s.budget
    rows = b.base_effective_batch_size
    return Measured(
        value=rows,
        message=f"{rows:,} rows, {b.base_effective_tokens_per_step:,} tokens per step ({b.base_batch_source})",
    )


def _launch(s: Subject) -> Measured:
    wanted = re.search(r"-ddp(\d+)(?:-|$)", s.plan.scale)
    ranks = s.budget.ddp_world_size
    if wanted is None:
        return Measured(
            value=0, message=f"scale {s.plan.scale} asks for no number of ranks; {ranks} will run"
        )
    return Measured(
        value=abs(int(wanted[1]) - ranks),
        message=f"scale {s.plan.scale} is for {wanted[1]} ranks; {ranks} will run",
    )


def _lr(s: Subject) -> Measured:
    rate = s.budget.base_configured_learning_rate
    return Measured(value=rate, message=f"base.learning_rate {rate:g}")


def _effective_lr(s: Subject) -> Measured:
    rate = s.budget.base_effective_learning_rate
    if not s.plan.base.auto_lr_scaling:
        return Measured(value=0.0, message=f"automatic scaling is off; the optimizer gets {rate:g}")
    return Measured(value=rate, message=f"the optimizer gets {rate:g}")


def _batch_scaling(s: Subject) -> Measured:
    b = s.budget
    ratio = b.base_effective_learning_rate / b.law_learning_rate
    return Measured(
        value=ratio,
        message=f"{b.base_effective_learning_rate:.2g} is {ratio:.2g} of the {b.law_learning_rate:.2g} that Step Law "
        f"(arXiv 2503.04715) gives for this model, these tokens and {b.base_effective_tokens_per_step:,} tokens per step",
    )


def _residual_init(s: Subject) -> Measured:
    model = s.plan.base.model
    scaled = model.scaled_residual_init
    said = f"{model.n_layer} layers, residual init " + ("scaled by depth" if scaled else "not scaled")
    return Measured(value=0 if scaled else model.n_layer, message=said)


def _release_tokens(s: Subject) -> Measured:
    ratio = s.budget.planned_param_data_ratio
    return Measured(value=ratio, message=f"{ratio:.1f} planned tokens per parameter")


def _times(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


PLAN_RULES: Final = (
    Rule(
        id="attention_backend_runtime",
        measures="attention kernel against device, number format, document mask, dropout, packages and head size",
        block=tuple(map(equal, ATTENTION_NEEDS)),
        unit="words",
        fix="set attn_backend of base and sft to auto",
        measure=_attention,
        stage=StageName.BASE,
    ),
    Rule(
        id="ddp_loss_spike_rollback",
        measures="what loss-spike rollback keeps on a device, over the memory that the rest of training leaves there",
        warn=(above(0.8),),
        block=(above(1.0),),
        unit="share",
        fix="set base.loss_spike_rollback to false, or base.gradient_checkpointing to true, or "
        "resources.distributed_strategy to fsdp, which shares it out",
        measure=_rollback,
        stage=StageName.BASE,
    ),
    Rule(
        id="ddp_muon_optimizer",
        measures="share of a step's operations that the busiest rank spends on Muon's orthogonalisation",
        warn=(above(0.1),),
        unit="share",
        fix="raise base.device_batch_size or base.grad_accum_steps, or set base.optimizer to adamw",
        measure=_muon,
        stage=StageName.BASE,
    ),
    Rule(
        id="fsdp_ranks",
        measures="whether fsdp has ranks to share the model out to",
        warn=(equal("alone"),),
        unit="words",
        fix="set resources.distributed_strategy to ddp, or give more ranks",
        measure=_fsdp,
        stage=StageName.BASE,
    ),
    Rule(
        id="compute_optimal_horizon",
        measures="planned tokens over target_param_data_ratio x parameters",
        warn=(below(0.5, LONG), above(1.5)),
        block=(above(3.0, LONG),),
        unit="number",
        fix="set base.max_steps to about {recommended_base_steps}, and base.global_batch_tokens to "
        "{recommended_tokens_per_step}",
        measure=_horizon,
        stage=StageName.BASE,
    ),
    Rule(
        id="corpus_model_fit",
        measures="epochs of this corpus that the target takes",
        warn=(above(12),),
        block=(above(30, LONG), not_measured(LONG)),
        unit="number",
        fix="give more text, or a smaller model: the target is {target_training_tokens} tokens, the corpus has about "
        "{estimated_corpus_tokens}",
        measure=_model_fit,
        stage=StageName.BASE,
    ),
    Rule(
        id="base_exposure",
        measures="epochs of the corpus that are planned",
        warn=(above(12), below(0.25, LONG)),
        block=(above(30, LONG), not_measured(LONG)),
        unit="number",
        fix="give more text or fewer base.max_steps; below a quarter of an epoch, give less text",
        measure=_exposure,
        stage=StageName.BASE,
    ),
    Rule(
        id="effective_batch",
        measures="rows per optimizer step over all ranks",
        warn=(below(8),),
        fix="raise base.device_batch_size or base.grad_accum_steps",
        measure=_batch,
        stage=StageName.BASE,
    ),
    Rule(
        id="ddp_scale_launch",
        measures="ranks that differ from those of a -ddpN preset",
        block=(above(0),),
        fix="set resources.nproc_per_node to the preset's number, or take the preset without -ddp",
        measure=_launch,
        stage=StageName.BASE,
    ),
    Rule(
        id="base_lr",
        measures="configured learning rate",
        warn=(above(0.003),),
        unit="number",
        fix="set base.learning_rate to 0.003 or less",
        measure=_lr,
        stage=StageName.BASE,
    ),
    Rule(
        id="base_effective_lr",
        measures="learning rate after automatic scaling, where it is on",
        warn=(above(0.003), above(0.001, LONG)),
        unit="number",
        fix="lower base.learning_rate, or set base.auto_lr_scaling to false",
        measure=_effective_lr,
        stage=StageName.BASE,
    ),
    Rule(
        id="lr_batch_scaling",
        measures="effective learning rate over that of Step Law for model, tokens and batch",
        warn=(below(0.125, LONG), above(2.0, LONG)),
        unit="number",
        fix="bring the learning rate nearer to {law_learning_rate:.2g}",
        measure=_batch_scaling,
        stage=StageName.BASE,
    ),
    Rule(
        id="ddp_auto_lr_scaling",
        measures="ranks where automatic scaling of learning rates is on",
        warn=(above(1),),
        fix="set auto_lr_scaling to false and give the rate for all ranks: otherwise it changes with their number",
        measure=_scaling_ranks,
        stage=StageName.BASE,
    ),
    Rule(
        id="residual_init_scale",
        measures="layers whose residual init is not scaled by depth",
        warn=(above(15),),
        fix="set base.model.scaled_residual_init to true",
        measure=_residual_init,
        stage=StageName.BASE,
    ),
    Rule(
        id="release_token_budget",
        measures="planned tokens per parameter",
        block=(below(RELEASE_TOKENS_PER_PARAMETER, LONG, RELEASE),),
        unit="number",
        fix="plan at least 20 tokens per parameter: base.max_steps of about {recommended_base_steps} and "
        "base.global_batch_tokens of {recommended_tokens_per_step} at a target_param_data_ratio of "
        "{target_param_data_ratio}",
        measure=_release_tokens,
        stage=StageName.BASE,
    ),
)
