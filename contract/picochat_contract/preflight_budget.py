"""The arithmetic of a plan: parameters, tokens, epochs, learning rates, memory and time. No judgement.

A run is long from 5,000 base steps, or from 1,000,000 parameters where base training also takes 1e14 operations or
more (some minutes of two CPU cores, a fraction of a second of a GPU). The last condition leaves out trials of a big
model's wiring and the CPU demo: 1.05 million parameters, but 6e12 operations, half a minute. The rules for long runs
guard money and days; a run that is over before its report is read needs none of them.
"""

from dataclasses import asdict, dataclass
from typing import Final

from picochat_contract.configs import PreflightConfig, RunPlan
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.learning_rates import (
    REFERENCE_ROWS,
    configured_learning_rate,
    effective_learning_rate,
    law_learning_rate,
    rows_per_step,
)
from picochat_contract.model_size import (
    flops_per_token,
    num_body_parameters,
    num_parameters,
    vocab_size,
)
from picochat_contract.preflight_facts import PreflightFacts
from picochat_contract.preflight_footprint import (
    device_class,
    disk_bytes,
    token_bytes,
    training_memory,
    training_seconds,
    validation_seconds,
)

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
    base_planned_tokens: int
    base_planned_flops: float
    target_param_data_ratio: float
    planned_param_data_ratio: float
    target_training_tokens: int
    target_training_epochs: float | None
    recommended_base_steps: int
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
    sft_effective_learning_rate: float
    law_learning_rate: float
    long_run: bool
    long_run_reason: str
    device: str
    memory_bytes: int
    memory_parameter_bytes: int
    memory_gradient_bytes: int
    memory_optimizer_bytes: int
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
    vocab = vocab_size(plan.tokenizer)
    parameters = num_parameters(base.model, vocab)
    tokens_per_byte, token_note = estimated_tokens_per_byte(plan.tokenizer)
    corpus_tokens = facts.corpus.num_bytes * tokens_per_byte + 2 * facts.corpus.num_documents
    train_tokens = corpus_tokens * (1 - base.val_fraction)
    step_tokens = rows_per_step(base, ranks) * base.model.sequence_len
    planned = base.max_steps * step_tokens
    target = config.target_param_data_ratio * parameters
    sft_rows = facts.chat.num_rows * (1 - sft.val_fraction) if facts.chat else 0.0
    sft_step_rows = rows_per_step(sft, ranks)
    flops = float(planned) * flops_per_token(base.model, vocab)
    is_long, reason = _long(base.max_steps, parameters, flops)
    on_gpu = uses_gpu(plan, facts)
    bf16 = uses_bf16(plan, facts)
    micro_rows = [base.device_batch_size, *([sft.device_batch_size] if "sft" in plan.stages else [])]
    memory = training_memory(base, vocab, on_gpu=on_gpu, bf16=bf16, rows=max(micro_rows))
    kind = device_class(machine, on_gpu=on_gpu, bf16=bf16)
    hours = None
    if kind is not None:
        seconds = training_seconds(base, base.model, vocab, kind, machine, ranks)
        seconds += validation_seconds(base, vocab, corpus_tokens - train_tokens, kind, machine, ranks)
        if "sft" in plan.stages:
            seconds += training_seconds(sft, base.model, vocab, kind, machine, ranks)
        hours = seconds / 3600
    on_each = [gpu.memory_bytes for gpu in machine.gpus[:ranks]] if on_gpu else [machine.ram_bytes // ranks]
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
        base_planned_tokens=planned,
        base_planned_flops=flops,
        target_param_data_ratio=config.target_param_data_ratio,
        planned_param_data_ratio=planned / parameters,
        target_training_tokens=round(target),
        target_training_epochs=target / train_tokens if train_tokens >= 1 else None,
        recommended_base_steps=max(1, round(target / step_tokens)),
        planned_to_target_ratio=planned / target,
        sft_planned_example_updates=sft.max_steps * sft_step_rows,
        estimated_base_epochs=planned / train_tokens if train_tokens >= 1 else None,
        estimated_sft_example_epochs=sft.max_steps * sft_step_rows / sft_rows if sft_rows else None,
        recommended_sft_steps=max(1, round(3 * sft_rows / sft_step_rows)) if sft_rows else None,
        base_lr_reference_effective_batch=REFERENCE_ROWS,
        auto_lr_scaling=base.auto_lr_scaling,
        base_configured_learning_rate=configured_learning_rate(base, ranks),
        sft_configured_learning_rate=configured_learning_rate(sft, ranks),
        base_effective_learning_rate=effective_learning_rate(base, ranks),
        sft_effective_learning_rate=effective_learning_rate(sft, ranks),
        law_learning_rate=law_learning_rate(num_body_parameters(base.model), planned, step_tokens),
        long_run=is_long,
        long_run_reason=reason,
        device=machine.gpus[0].name if on_gpu else f"cpu, {machine.cpu_count} cores",
        memory_bytes=memory.total,
        memory_parameter_bytes=memory.parameters,
        memory_gradient_bytes=memory.gradients,
        memory_optimizer_bytes=memory.optimizer,
        memory_activation_bytes=memory.activations,
        memory_logit_bytes=memory.logits,
        device_memory_bytes=min(on_each),
        token_memory_bytes=round(corpus_tokens * token_bytes(vocab)) * ranks,
        disk_bytes=round(disk_bytes(base, vocab, corpus_tokens)),
        estimated_hours=hours,
    )


def estimated_tokens_per_byte(tokenizer: TokenizerConfig) -> tuple[float, str]:
    """Tokens per UTF-8 byte before the tokenizer exists, and the rule in words."""
    if tokenizer.type in ("char", "byte"):
        return 1.0, f"one per byte ({tokenizer.type})"
    size, rate = next(pair for pair in TOKENS_PER_BYTE if tokenizer.vocab_size >= pair[0])
    return rate, f"{rate:g} per byte (bpe, vocabulary of {size:,} or more)"


def uses_gpu(plan: RunPlan, facts: PreflightFacts) -> bool:
    """What `resources.device` comes to on this machine."""
    return plan.resources.device != "cpu" and bool(facts.machine.gpus)


def uses_bf16(plan: RunPlan, facts: PreflightFacts) -> bool:
    """What `base.precision` comes to on this machine."""
    machine = facts.machine
    if plan.base.precision == "auto":
        return machine.gpus[0].has_bf16 if uses_gpu(plan, facts) else machine.cpu_has_bf16
    return plan.base.precision == "bf16"


def _long(steps: int, parameters: int, flops: float) -> tuple[bool, str]:
    if steps >= LONG_STEPS:
        return True, f"{steps:,} base steps, {LONG_STEPS:,} or more"
    if parameters >= LONG_PARAMETERS and flops >= LONG_FLOPS:
        return True, f"{parameters:,} parameters and {flops:.1e} operations"
    return False, f"{steps:,} base steps, {parameters:,} parameters, {flops:.1e} operations"
