"""What a training takes of its machine: memory, disk and time, estimated before it starts.

Memory counts what the eager form keeps for the backward pass (a test measures it); torch.compile needs less. Time is
operations over a stated share of a device's peak, and no better than that share. Money is not estimated: nobody here
knows a price.
"""

from dataclasses import dataclass
from typing import Final

from picochat_contract.configs import BaseConfig, ModelConfig, OptimConfig
from picochat_contract.model_size import flops_per_token, num_matrix_parameters, num_parameters
from picochat_contract.preflight_facts import MachineFacts

MAX_VAL_TOKENS: Final = 1 << 20  # a validation reads no more than this
STARTUP_SECONDS: Final = 30.0  # loading, compiling: per training stage
BYTES_PER_LOGIT: Final = 12  # in bf16, in float32, its softmax, and the gradient of each


@dataclass(frozen=True, kw_only=True)
class DeviceClass:
    """A kind of device, and the speed that training is assumed to reach on it."""

    pattern: str
    """Part of the device's name, in lower case."""
    peak_flops: float
    """bf16 without sparsity, per second, by the maker's data sheet."""
    utilisation: float = 0.35
    """Share of the peak that training is assumed to reach; nanochat and GPT-2 reproductions report 0.38 to 0.50."""
    layer_seconds: float = 4e-4
    """Shortest time of one layer, forward and backward: the launches of its kernels."""


GPU_CLASSES: Final = (  # the first whose pattern is in the name
    DeviceClass(pattern="b200", peak_flops=2250e12),
    DeviceClass(pattern="h200", peak_flops=989e12),
    DeviceClass(pattern="h100 pcie", peak_flops=756e12),
    DeviceClass(pattern="h100", peak_flops=989e12),
    DeviceClass(pattern="a100", peak_flops=312e12),
    DeviceClass(pattern="l40s", peak_flops=362e12),
    DeviceClass(pattern="rtx 4090", peak_flops=165e12),
    DeviceClass(pattern="a10", peak_flops=125e12),
    DeviceClass(pattern="l4", peak_flops=121e12),
)
# Per core, a little under what training reached on an AMD EPYC with AVX-512 (docs/log.md); no peak, so the share is 1.
CPU_BF16: Final = DeviceClass(pattern="cpu", peak_flops=150e9, utilisation=1.0, layer_seconds=0.0)
CPU_FLOAT32: Final = DeviceClass(pattern="cpu", peak_flops=45e9, utilisation=1.0, layer_seconds=0.0)


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one device, by what they hold."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations + self.logits


def training_memory(
    base: BaseConfig, vocab: int, *, on_gpu: bool, bf16: bool, rows: int | None = None
) -> MemoryEstimate:
    """Float32 weights and gradients, optimizer states, and the activations of one micro-batch of `rows`, by default
    that of the base stage."""
    count = num_parameters(base.model, vocab)
    tokens = (rows or base.device_batch_size) * base.model.sequence_len
    muon = num_matrix_parameters(base.model) if base.optimizer == "muon" else 0
    return MemoryEstimate(
        parameters=count * (6 if bf16 else 4),  # with autocast's copy
        gradients=count * 4,
        optimizer=count * 8 - muon * 4 + _snapshot_bytes(base, count),  # AdamW keeps two moments, Muon one
        activations=tokens * base.model.n_layer * _layer_bytes(base.model, on_gpu=on_gpu, bf16=bf16),
        logits=tokens * vocab * BYTES_PER_LOGIT,
    )


def disk_bytes(base: BaseConfig, vocab: int, corpus_tokens: float) -> float:
    """Token shards, and for base and SFT: two resume checkpoints while one replaces the other, best and last weights."""
    count = num_parameters(base.model, vocab)
    resume_points = 2 * count * 2 * 12 + 2 * _snapshot_bytes(base, count)
    return corpus_tokens * token_bytes(vocab) + resume_points + 2 * count * 2 * 2 * 4


def _snapshot_bytes(base: BaseConfig, num_parameters: int) -> int:
    """What rollback keeps of weights and optimizer, on the device and in each resume checkpoint."""
    return num_parameters * 12 if base.loss_spike_rollback else 0


def token_bytes(vocab: int) -> int:
    """Bytes per token of the token store."""
    return 2 if vocab <= 1 << 16 else 4


def device_class(machine: MachineFacts, *, on_gpu: bool, bf16: bool) -> DeviceClass | None:
    """None for a GPU that is not in the table."""
    if not on_gpu:
        return CPU_BF16 if bf16 else CPU_FLOAT32
    name = machine.gpus[0].name.lower()
    return next((kind for kind in GPU_CLASSES if kind.pattern in name), None)


def training_seconds(
    config: OptimConfig,
    model: ModelConfig,
    vocab: int,
    kind: DeviceClass,
    machine: MachineFacts,
    num_ranks: int,
) -> float:
    """All steps of one training stage, each row as long as the context."""
    cores = machine.cpu_count if kind.pattern == "cpu" else num_ranks
    rate = kind.peak_flops * kind.utilisation * cores / num_ranks  # per rank
    micro_tokens = config.device_batch_size * model.sequence_len
    micro = max(micro_tokens * flops_per_token(model, vocab) / rate, model.n_layer * kind.layer_seconds)
    return STARTUP_SECONDS + config.max_steps * config.grad_accum_steps * micro


def validation_seconds(
    base: BaseConfig, vocab: int, val_tokens: float, kind: DeviceClass, machine: MachineFacts, num_ranks: int
) -> float:
    """All validations of the base stage: forward passes only, a third of the operations."""
    cores = machine.cpu_count if kind.pattern == "cpu" else num_ranks
    times = base.max_steps // base.eval_every + 1
    operations = times * min(val_tokens, MAX_VAL_TOKENS) * flops_per_token(base.model, vocab) / 3
    return operations / (kind.peak_flops * kind.utilisation * cores)


def _layer_bytes(model: ModelConfig, *, on_gpu: bool, bf16: bool) -> int:
    """Bytes per token that one layer keeps for its backward pass. Coefficients fitted to saved tensors."""
    kv_width = model.num_kv_heads * model.head_dim
    if bf16:
        kept, scores = 37 * model.n_embd + 10 * kv_width + 8 * model.hidden, 6
    else:
        kept, scores = 40 * model.n_embd + 16 * kv_width + 16 * model.hidden, 4
    # Plain matmul attention, which the CPU takes, keeps every score.
    return kept if on_gpu else kept + scores * model.n_head * model.sequence_len
