"""Preflight rules about the plan of base pretraining: tokens, batch, learning rate, ranks."""

import re
from typing import Final

from picochat_contract.preflight_budget import uses_bf16, uses_gpu
from picochat_contract.preflight_rules import (
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
RELEASE_TOKENS_PER_PARAMETER: Final = 18.0  # 0.9 x 20


def _attention(s: Subject) -> Measured:
    backend = s.plan.base.attn_backend
    on_gpu, bf16 = uses_gpu(s.plan, s.facts), uses_bf16(s.plan, s.facts)
    if backend in ("flash", "efficient", "cudnn") and not on_gpu:
        return Measured(value="needs cuda", message=f"{backend} attention on {s.budget.device}")
    if backend in ("flash", "cudnn") and not bf16:
        return Measured(value="needs bf16", message=f"{backend} attention in float32")
    return Measured(value="fits", message=f"{backend} attention on {s.budget.device}")


def _rollback_ranks(s: Subject) -> Measured:
    return _ranks(s, s.plan.base.loss_spike_rollback, "loss-spike rollback")


def _muon_ranks(s: Subject) -> Measured:
    return _ranks(s, s.plan.base.optimizer == "muon", "Muon")


def _scaling_ranks(s: Subject) -> Measured:
    return _ranks(
        s, s.plan.base.auto_lr_scaling or s.plan.sft.auto_lr_scaling, "automatic scaling of learning rates"
    )


def _ranks(s: Subject, is_on: bool, what: str) -> Measured:
    ranks = s.budget.ddp_world_size
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
    rows = s.budget.base_effective_batch_size
    return Measured(
        value=rows, message=f"{rows:,} rows, {s.budget.base_effective_tokens_per_step:,} tokens per step"
    )


def _launch(s: Subject) -> Measured:
    wanted = re.search(r"-ddp(\d+)$", s.plan.scale)
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
        measures="attention kernel against device and number format",
        block=(equal("needs cuda"), equal("needs bf16")),
        unit="words",
        fix="set base.attn_backend to auto",
        measure=_attention,
        stage=StageName.BASE,
    ),
    Rule(
        id="ddp_loss_spike_rollback",
        measures="ranks where loss-spike rollback is on",
        block=(above(1),),
        fix="set base.loss_spike_rollback to false: it is for one process",
        measure=_rollback_ranks,
        stage=StageName.BASE,
    ),
    Rule(
        id="ddp_muon_optimizer",
        measures="ranks where Muon is on",
        warn=(above(1),),
        fix="expect every rank to repeat the orthogonalisation, or set base.optimizer to adamw",
        measure=_muon_ranks,
        stage=StageName.BASE,
    ),
    Rule(
        id="compute_optimal_horizon",
        measures="planned tokens over target_param_data_ratio x parameters",
        warn=(below(0.5, LONG), above(1.5)),
        block=(above(3.0, LONG),),
        unit="number",
        fix="set base.max_steps to about {recommended_base_steps}",
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
        measures="learning rate after automatic scaling",
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
        fix="plan at least 20 tokens per parameter: base.max_steps of about {recommended_base_steps} at a "
        "target_param_data_ratio of {target_param_data_ratio}",
        measure=_release_tokens,
        stage=StageName.BASE,
    ),
)
