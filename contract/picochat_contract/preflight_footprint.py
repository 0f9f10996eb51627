"""What a training takes of its machine: memory, disk and time, estimated before it starts.

Memory counts what the eager form keeps for the backward pass (a test measures it); torch.compile needs less. Time is
operations over a stated share of a device's peak, and no better than that share. Money is not estimated: nobody here
knows a price.
"""

from dataclasses import dataclass
from typing import Final

from picochat_contract.configs import BaseConfig, DistributedStrategy, ModelConfig, OptimConfig
from picochat_contract.device_classes import DeviceClass
from picochat_contract.holdout import MAX_VAL_TOKENS, tokens_in_training
from picochat_contract.learning_rates import rows_per_step
from picochat_contract.model_size import (
    flops_per_token,
    num_body_parameters,
    num_matrix_parameters,
    num_parameters,
    orthogonalisation_flops,
)
from picochat_contract.preflight_facts import MachineFacts

STARTUP_SECONDS: Final = 30.0  # loading, compiling: per training stage
BYTES_PER_LOGIT: Final = 12  # in bf16, in float32, its softmax, and the gradient of each
WHOLE_LOGITS_GPU: Final = 1 << 29
WHOLE_LOGITS_CPU: Final = 64 << 20
"""Bytes of float32 logits above which the loss is computed in chunks no larger than that. Of a GPU: so that no preset has those of a
whole micro-batch at once; its speed was not measured. Of a CPU: its caches are small, its memory is shared."""
CHECKPOINTING_FACTOR: Final = 4 / 3
"""Operations of a step whose blocks are computed again in the backward pass: 4 forward passes' worth instead of 3."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device, by what they hold."""

    parameters: int
    gradients: int
    optimizer: int
    ema: int
    snapshot: int
    """What rollback can go back to."""
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.without_snapshot + self.snapshot

    @property
    def without_snapshot(self) -> int:
        states = self.parameters + self.gradients + self.optimizer + self.ema
        return states + self.activations + self.logits


def training_memory(
    base: BaseConfig,
    vocab: int,
    *,
    on_gpu: bool,
    bf16: bool,
    num_ranks: int = 1,
    strategy: DistributedStrategy = "ddp",
) -> MemoryEstimate:
    """Float32 weights and gradients, optimizer states, and the activations of one micro-batch. With fsdp each rank has its
    share of the states, and whole what it is at work on; with accumulation also all gradients, until they are summed."""
    count = num_parameters(base.model, vocab)
    tokens = base.device_batch_size * base.model.sequence_len
    weight = 6 if bf16 else 4  # with autocast's copy
    logits = _logit_bytes(base, vocab, tokens, on_gpu=on_gpu)
    shares, whole = (num_ranks, _gathered(base.model, vocab)) if strategy == "fsdp" else (1, 0)
    waiting = count if strategy == "fsdp" and base.grad_accum_steps > 1 else whole
    return MemoryEstimate(
        parameters=count * weight // shares + whole * weight,
        gradients=count * 4 // shares + waiting * 4,
        optimizer=_optimizer_bytes(base, count) // shares,
        ema=(count * 4 if base.ema_decay else 0) // shares,
        snapshot=_snapshot_bytes(base, count) // shares,
        activations=_activation_bytes(base, tokens, logits, on_gpu=on_gpu, bf16=bf16),
        logits=logits,
    )


def disk_bytes(base: BaseConfig, vocab: int, corpus_tokens: float) -> float:
    """Bytes: token shards; four resume points (weights, optimizer, mean) and two snapshots of rollback; best and last weights
    of base and of SFT, and those that base keeps. A stage has three resume points at most, each with its snapshot (the newest,
    the one before it, the one being written), and removes them at its end. Corpus and reports are not counted."""
    count = num_parameters(base.model, vocab)
    resume_point = count * 4 + _optimizer_bytes(base, count) + (count * 4 if base.ema_decay else 0)
    resume_points = 2 * (2 * resume_point + _snapshot_bytes(base, count))
    kept = base.max_steps // base.keep_every if base.keep_every else 0
    return corpus_tokens * token_bytes(vocab) + resume_points + (2 * 2 + kept) * count * 4


def token_bytes(vocab: int) -> int:
    """Bytes per token of the token store."""
    return 2 if vocab <= 1 << 16 else 4


def training_seconds(
    config: OptimConfig,
    model: ModelConfig,
    vocab: int,
    kind: DeviceClass,
    machine: MachineFacts,
    num_ranks: int,
    num_machines: int = 1,
) -> float:
    """All steps of one training stage, each row as long as the context."""
    rate = _rank_rate(kind, machine, num_ranks, num_machines)
    micro_tokens = config.device_batch_size * model.sequence_len
    factor = CHECKPOINTING_FACTOR if config.gradient_checkpointing else 1.0
    operations = micro_tokens * flops_per_token(model, vocab) * factor
    micro = max(operations / rate, model.n_layer * kind.layer_seconds)
    update = muon_operations(config, num_ranks) / rate
    return STARTUP_SECONDS + config.max_steps * (config.grad_accum_steps * micro + update)


def validation_seconds(
    base: BaseConfig,
    vocab: int,
    val_tokens: float,
    kind: DeviceClass,
    machine: MachineFacts,
    num_ranks: int,
    num_machines: int = 1,
) -> float:
    """All validations of the base stage: forward passes only, a third of the operations. Between steps all ranks take a
    sample of the text; at the end the main rank takes all of it alone."""
    rate = _rank_rate(kind, machine, num_ranks, num_machines)
    step_tokens = rows_per_step(base, num_ranks) * base.model.sequence_len
    times = -(-base.max_steps // base.eval_every)
    tokens = times * min(val_tokens, tokens_in_training(base, step_tokens)) / num_ranks
    return (tokens + min(val_tokens, MAX_VAL_TOKENS)) * flops_per_token(base.model, vocab) / 3 / rate


def muon_operations(config: OptimConfig, num_ranks: int) -> float:
    """Operations per step that the busiest rank spends on orthogonalisation; 0 with AdamW."""
    if not isinstance(config, BaseConfig) or config.optimizer != "muon":
        return 0.0
    return orthogonalisation_flops(config.model, num_ranks)


def muon_share(config: BaseConfig, vocab: int, num_ranks: int) -> float:
    """Share of a step's operations on the busiest rank that are Muon's orthogonalisation."""
    micro_tokens = config.device_batch_size * config.model.sequence_len
    training = config.grad_accum_steps * micro_tokens * flops_per_token(config.model, vocab)
    spent = muon_operations(config, num_ranks)
    return spent / (spent + training)


def _rank_rate(kind: DeviceClass, machine: MachineFacts, num_ranks: int, num_machines: int) -> float:
    """Operations per second of one rank; the ranks of a machine share its cores."""
    devices = machine.cpu_count * num_machines / num_ranks if kind.is_cpu else 1.0
    return kind.peak_flops * kind.utilisation * devices


def _optimizer_bytes(base: BaseConfig, num_parameters: int) -> int:
    """AdamW keeps two moments, Muon one."""
    muon = num_matrix_parameters(base.model) if base.optimizer == "muon" else 0
    return num_parameters * 8 - muon * 4


def _snapshot_bytes(base: BaseConfig, num_parameters: int) -> int:
    """Weights and optimizer a second time, on the device and in each resume checkpoint."""
    if not base.loss_spike_rollback:
        return 0
    return num_parameters * 4 + _optimizer_bytes(base, num_parameters)


def _gathered(model: ModelConfig, vocab: int) -> int:
    """Parameters that fsdp holds whole at once: embedding and head, the block at work and the next one."""
    body = num_body_parameters(model)
    return num_parameters(model, vocab) - body + min(2, model.n_layer) * body // model.n_layer


def _logit_bytes(base: BaseConfig, vocab: int, tokens: int, *, on_gpu: bool) -> int:
    """In one piece all that the loss keeps of the logits; in chunks one of them, and the head's gradient in float32."""
    limit = base.loss_chunk_tokens or max(
        16, (WHOLE_LOGITS_GPU if on_gpu else WHOLE_LOGITS_CPU) // (4 * vocab)
    )
    if tokens <= limit:
        return tokens * vocab * BYTES_PER_LOGIT
    return limit * vocab * BYTES_PER_LOGIT + vocab * base.model.n_embd * 4


def _activation_bytes(base: BaseConfig, tokens: int, logits: int, *, on_gpu: bool, bf16: bool) -> int:
    """Of all layers; with checkpointing the input of each, in float32, and one layer whole once the logits are gone."""
    layer = tokens * _layer_bytes(base.model, on_gpu=on_gpu, bf16=bf16)
    if base.gradient_checkpointing:
        return base.model.n_layer * tokens * 4 * base.model.n_embd + max(0, layer - logits)
    return base.model.n_layer * layer


def _layer_bytes(model: ModelConfig, *, on_gpu: bool, bf16: bool) -> int:
    """Bytes per token that one layer keeps for its backward pass. Coefficients fitted to saved tensors."""
    kv_width = model.num_kv_heads * model.head_dim
    hidden = model.hidden * (2 if model.activation == "swiglu" else 1)
    if bf16:
        kept, normed, scores = 31 * model.n_embd + 4 * kv_width + 4 * hidden, 6, 6
    else:
        kept, normed, scores = 32 * model.n_embd + 8 * kv_width + 8 * hidden, 8, 4
    if model.qk_norm:
        kept += normed * (model.n_embd + kv_width)
    # Plain matmul attention, which the CPU takes, keeps every score.
    return kept if on_gpu else kept + scores * model.n_head * model.sequence_len
