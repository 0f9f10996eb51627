"""What follows from a plan alone, before there is a corpus: parameters, tokens, rates, memory and time on a machine.

Presets, `picochat scale plan` and preflight's budget take their numbers from here.
"""

from dataclasses import dataclass

from picochat_contract.configs import BaseConfig, OptimConfig, RunPlan, SftConfig
from picochat_contract.device_classes import device_class
from picochat_contract.holdout import MAX_VAL_TOKENS
from picochat_contract.learning_rates import effective_learning_rate, effective_weight_decay, rows_per_step
from picochat_contract.model_size import flops_per_token, num_parameters, vocab_size
from picochat_contract.preflight_facts import MachineFacts
from picochat_contract.preflight_footprint import (
    MemoryEstimate,
    training_memory,
    training_seconds,
    validation_seconds,
)


@dataclass(frozen=True, kw_only=True)
class PlanFigures:
    """Sizes are bytes, rates are per optimizer step."""

    vocab_size: int
    parameters: int
    tokens_per_step: int
    planned_tokens: int
    """Of base pretraining."""
    planned_flops: float
    learning_rate: float
    weight_decay: float
    memory: MemoryEstimate
    """On each device, of the stage that takes more: base or SFT."""
    base_memory: MemoryEstimate
    device: str
    device_memory_bytes: int
    """What one rank has."""
    hours: float | None
    """Of base and SFT; None where the speed of the device is not known."""

    @property
    def tokens_per_parameter(self) -> float:
        return self.planned_tokens / self.parameters


def plan_figures(plan: RunPlan, machine: MachineFacts, val_tokens: float = MAX_VAL_TOKENS) -> PlanFigures:
    """`val_tokens`: how many are held out; no more than `MAX_VAL_TOKENS` are read."""
    base, resources = plan.base, plan.resources
    ranks, vocab = resources.num_ranks, vocab_size(plan.tokenizer)
    parameters = num_parameters(base.model, vocab)
    step_tokens = rows_per_step(base, ranks) * base.model.sequence_len
    on_gpu, bf16 = uses_gpu(plan, machine), uses_bf16(plan, machine)
    here = resources.nproc_per_node
    on_each = [gpu.memory_bytes for gpu in machine.gpus[:here]] if on_gpu else [machine.ram_bytes // here]
    memory = [_memory(stage, plan, vocab, on_gpu=on_gpu, bf16=bf16) for stage in _trained(plan)]
    return PlanFigures(
        vocab_size=vocab,
        parameters=parameters,
        tokens_per_step=step_tokens,
        planned_tokens=base.max_steps * step_tokens,
        planned_flops=float(base.max_steps * step_tokens) * flops_per_token(base.model, vocab),
        learning_rate=effective_learning_rate(base, ranks),
        weight_decay=effective_weight_decay(base, ranks),
        memory=max(memory, key=lambda estimate: estimate.total),
        base_memory=memory[0],
        device=machine.gpus[0].name if on_gpu else f"cpu, {machine.cpu_count} cores",
        device_memory_bytes=min(on_each),
        hours=_hours(plan, machine, vocab, val_tokens, on_gpu=on_gpu, bf16=bf16),
    )


def uses_gpu(plan: RunPlan, machine: MachineFacts) -> bool:
    """What `resources.device` comes to on this machine."""
    return plan.resources.device != "cpu" and bool(machine.gpus)


def uses_bf16(plan: RunPlan, machine: MachineFacts) -> bool:
    """What `base.precision` comes to on this machine."""
    if plan.base.precision == "auto":
        return machine.gpus[0].has_bf16 if uses_gpu(plan, machine) else machine.cpu_has_bf16
    return plan.base.precision == "bf16"


def _trained(plan: RunPlan) -> list[BaseConfig]:
    return [plan.base, sft_as_base(plan.base, plan.sft)] if "sft" in plan.stages else [plan.base]


def sft_as_base(base: BaseConfig, sft: SftConfig) -> BaseConfig:
    """SFT as if it were base training: the model is the same, AdamW, no rollback and no document mask are all that it has."""
    shared = {name: getattr(sft, name) for name in OptimConfig.model_fields}
    own = {"optimizer": "adamw", "loss_spike_rollback": False, "document_mask": False}
    return base.model_copy(update={**shared, **own})


def _memory(stage: BaseConfig, plan: RunPlan, vocab: int, *, on_gpu: bool, bf16: bool) -> MemoryEstimate:
    resources = plan.resources
    return training_memory(
        stage,
        vocab,
        on_gpu=on_gpu,
        bf16=bf16,
        num_ranks=resources.num_ranks,
        strategy=resources.distributed_strategy,
    )


def _hours(
    plan: RunPlan, machine: MachineFacts, vocab: int, val_tokens: float, *, on_gpu: bool, bf16: bool
) -> float | None:
    kind = device_class(machine, on_gpu=on_gpu, bf16=bf16)
    if kind is None:
        return None
    ranks, machines = plan.resources.num_ranks, plan.resources.nnodes
    seconds = validation_seconds(plan.base, vocab, val_tokens, kind, machine, ranks, machines)
    for stage in _trained(plan):
        seconds += training_seconds(stage, plan.base.model, vocab, kind, machine, ranks, machines)
    return seconds / 3600
