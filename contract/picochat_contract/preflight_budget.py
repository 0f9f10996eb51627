"""The arithmetic of a plan: parameters, tokens, epochs, learning rates, memory and time. No judgement.

A run is long from 5,000 base steps, or from 1,000,000 parameters where base training also takes 1e14 operations or
more (some minutes of two CPU cores, a fraction of a second of a GPU). The last condition leaves out trials of a big
model's wiring and the CPU demo: 1.05 million parameters, but 6e12 operations, half a minute. The rules for long runs
guard money and days; a run that is over before its report is read needs none of them.
"""

from dataclasses import asdict, dataclass
from typing import Final

from picochat_contract.batch_size import law_batch, micro_batch, nearest_passes, source_in_words
from picochat_contract.configs import BaseConfig, PreflightConfig, RunPlan
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.holdout import held_out_fraction
from picochat_contract.learning_rates import (
    REFERENCE_ROWS,
    configured_learning_rate,
    effective_learning_rate,
    law_learning_rate,
    rows_per_step,
)
from picochat_contract.model_size import num_body_parameters
from picochat_contract.plan_figures import plan_figures
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.preflight_footprint import disk_bytes, muon_share, token_bytes

LONG_STEPS: Final = 5_000
LONG_PARAMETERS: Final = 1_000_000
LONG_FLOPS: Final = 1e14
TOKENS_PER_BYTE: Final = ((32_768, 0.23), (8_192, 0.25), (2_048, 0.30), (1_024, 0.37), (512, 0.48), (0, 0.70))
"""By size of a bpe vocabulary, largest first; per UTF-8 byte, so that scripts other than Latin are not undercounted.

Means of WikiText-2, tinyshakespeare and Python's manual, which lie within 15 % of them; the first is an estimate.
"""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Every number that a check compares or a fix names. Rates are per optimizer step, sizes are bytes."""

    estimated_parameters: int
    vocab_size: int
    estimated_corpus_tokens: int
    corpus_token_note: str
    corpus_bytes_per_token: float
    corpus_tokens_per_parameter: float
    ddp_world_size: int
    base_effective_batch_size: int
    sft_effective_batch_size: int
    base_effective_tokens_per_step: int
    base_batch_source: str
    law_tokens_per_step: int
    base_planned_tokens: int
    base_planned_flops: float
    target_param_data_ratio: float
    planned_param_data_ratio: float
    target_training_tokens: int
    target_training_epochs: float | None
    recommended_base_steps: int
    recommended_tokens_per_step: int
    planned_to_target_ratio: float
    sft_planned_example_updates: int
    estimated_base_epochs: float | None
    estimated_sft_example_epochs: float | None
    recommended_sft_steps: int | None
    base_lr_reference_effective_batch: int
    auto_lr_scaling: bool
    base_configured_learning_rate: float
    sft_configured_learning_rate: float
    base_effective_learning_rate: float
    base_effective_weight_decay: float
    sft_effective_learning_rate: float
    law_learning_rate: float
    long_run: bool
    long_run_reason: str
    muon_share: float
    device: str
    memory_bytes: int
    memory_parameter_bytes: int
    memory_gradient_bytes: int
    memory_optimizer_bytes: int
    memory_ema_bytes: int
    memory_snapshot_bytes: int
    base_memory_bytes: int
    base_snapshot_bytes: int
    memory_activation_bytes: int
    memory_logit_bytes: int
    device_memory_bytes: int
    token_memory_bytes: int
    disk_bytes: int
    estimated_hours: float | None

    def as_dict(self) -> dict[str, float | bool | str | None]:
        return asdict(self)


def plan_budget(config: PreflightConfig, plan: RunPlan, facts: PreflightFacts) -> Budget:
    """Compute everything; what needs a corpus or rows that are not there is None."""
    base, sft, machine = plan.base, plan.sft, facts.machine
    ranks = plan.resources.num_ranks
    tokens_per_byte, token_note = estimated_tokens_per_byte(plan.tokenizer)
    corpus_tokens = facts.corpus.num_bytes * tokens_per_byte + 2 * facts.corpus.num_documents
    train_tokens = corpus_tokens * (1 - held_out_fraction(base.val_fraction, round(corpus_tokens)))
    figures = plan_figures(plan, machine, corpus_tokens - train_tokens)
    vocab, parameters = figures.vocab_size, figures.parameters
    step_tokens, planned = figures.tokens_per_step, figures.planned_tokens
    target = config.target_param_data_ratio * parameters
    recommended = _tokens_per_step(base, ranks, target)
    sft_rows = facts.chat.num_rows * (1 - sft.val_fraction) if facts.chat else 0.0
    sft_step_rows = rows_per_step(sft, ranks)
    is_long, reason = long_run(base.max_steps, parameters, figures.planned_flops)
    memory = figures.memory
    return Budget(
        estimated_parameters=parameters,
        vocab_size=vocab,
        estimated_corpus_tokens=round(corpus_tokens),
        corpus_token_note=token_note,
        corpus_bytes_per_token=1 / tokens_per_byte,
        corpus_tokens_per_parameter=corpus_tokens / parameters,
        ddp_world_size=ranks,
        base_effective_batch_size=rows_per_step(base, ranks),
        sft_effective_batch_size=sft_step_rows,
        base_effective_tokens_per_step=step_tokens,
        base_batch_source=source_in_words(base),
        law_tokens_per_step=round(law_batch(planned)),
        base_planned_tokens=planned,
        base_planned_flops=figures.planned_flops,
        target_param_data_ratio=config.target_param_data_ratio,
        planned_param_data_ratio=planned / parameters,
        target_training_tokens=round(target),
        target_training_epochs=target / train_tokens if train_tokens >= 1 else None,
        recommended_base_steps=max(1, round(target / recommended)),
        recommended_tokens_per_step=recommended,
        planned_to_target_ratio=planned / target,
        sft_planned_example_updates=sft.max_steps * sft_step_rows,
        estimated_base_epochs=planned / train_tokens if train_tokens >= 1 else None,
        estimated_sft_example_epochs=sft.max_steps * sft_step_rows / sft_rows if sft_rows else None,
        recommended_sft_steps=max(1, round(3 * sft_rows / sft_step_rows)) if sft_rows else None,
        base_lr_reference_effective_batch=REFERENCE_ROWS,
        auto_lr_scaling=base.auto_lr_scaling,
        base_configured_learning_rate=configured_learning_rate(base, ranks),
        sft_configured_learning_rate=configured_learning_rate(sft, ranks),
        base_effective_learning_rate=figures.learning_rate,
        base_effective_weight_decay=figures.weight_decay,
        sft_effective_learning_rate=effective_learning_rate(sft, ranks),
        law_learning_rate=law_learning_rate(
            num_body_parameters(base.model), planned, step_tokens, base.optimizer
        ),
        long_run=is_long,
        long_run_reason=reason,
        muon_share=muon_share(base, vocab, ranks),
        device=figures.device,
        memory_bytes=memory.total,
        memory_parameter_bytes=memory.parameters,
        memory_gradient_bytes=memory.gradients,
        memory_optimizer_bytes=memory.optimizer,
        memory_ema_bytes=memory.ema,
        memory_snapshot_bytes=memory.snapshot,
        base_memory_bytes=figures.base_memory.total,
        base_snapshot_bytes=figures.base_memory.snapshot,
        memory_activation_bytes=memory.activations,
        memory_logit_bytes=memory.logits,
        device_memory_bytes=figures.device_memory_bytes,
        token_memory_bytes=round(corpus_tokens * token_bytes(vocab)) * plan.resources.nproc_per_node,
        disk_bytes=round(disk_bytes(base, vocab, corpus_tokens)),
        estimated_hours=figures.hours,
    )


def _tokens_per_step(base: BaseConfig, num_ranks: int, target: float) -> int:
    """Those of the plan where they are given; a derived batch is another one once the plan meets its target."""
    micro = micro_batch(base, num_ranks)
    derived = base.batch_source == "derived"
    return micro.tokens * (nearest_passes(micro, law_batch(target)) if derived else base.grad_accum_steps)


def estimated_tokens_per_byte(tokenizer: TokenizerConfig) -> tuple[float, str]:
    """Tokens per UTF-8 byte before the tokenizer exists, and the rule in words."""
    if tokenizer.type in ("char", "byte"):
        return 1.0, f"one per byte ({tokenizer.type})"
    size, rate = next(pair for pair in TOKENS_PER_BYTE if tokenizer.vocab_size >= pair[0])
    return rate, f"{rate:g} per byte (bpe, vocabulary of {size:,} or more)"


def long_run(steps: int, parameters: int, flops: float) -> tuple[bool, str]:
    """Whether the rules for long runs apply, and why or why not in words; `flops` are those of base training."""
    if steps >= LONG_STEPS:
        return True, f"{steps:,} base steps, {LONG_STEPS:,} or more"
    if parameters >= LONG_PARAMETERS and flops >= LONG_FLOPS:
        return True, f"{parameters:,} parameters and {flops:.1e} operations"
    return False, f"{steps:,} base steps, {parameters:,} parameters, {flops:.1e} operations"
