"""`scale plan`: from a number of parameters, a depth or a number of tokens to a whole run spec.

Width follows depth, batch and rates follow published laws, steps follow from 20 tokens per parameter (Hoffmann et al.,
arXiv 2203.15556); parameters, memory and time are those of `plan_figures`. Pure arithmetic: nothing is read or written.
"""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import Field, model_validator

from picochat_contract.batch_size import DERIVED, MicroBatch, accumulation_steps, law_batch, stage_config
from picochat_contract.config_base import Config
from picochat_contract.configs import (
    AttentionBackend,
    BaseConfig,
    BaseSection,
    GateProfile,
    ModelConfig,
)
from picochat_contract.device_classes import planned_machine
from picochat_contract.errors import Code, SpecError
from picochat_contract.learning_rates import effective_learning_rate, law_warmup
from picochat_contract.model_size import num_body_parameters, num_parameters
from picochat_contract.plan_figures import PlanFigures, plan_figures
from picochat_contract.scales_facts import run_plan
from picochat_contract.spec import parse_mapping, validated

DEPTHS: Final = range(1, 129)
WIDTH_MULTIPLE: Final = 64
MACHINE_GPUS: Final = 8
"""Few machines have more."""
NEAR: Final = 0.3
"""How far the nearest model may be from the parameters that were asked for."""
FULL: Final = 0.85
"""Share of a device's memory that a plan may fill: from there on preflight warns."""
WARMUP_SHARE: Final = 0.045
GENERATED_ROWS: Final = 3_000
SFT_EPOCHS: Final = 3
SFT_ROWS_PER_STEP: Final = 32
MOST_SFT_RATE: Final = 2e-4
LAW_PARAMETERS: Final = (60 * 10**6, 10**9)
"""Of the models, without embedding and head, that Step Law was fitted on."""
NANOCHAT_BATCH: Final = 1 << 19
NANOCHAT_TOKENS: Final = 1.156e9
"""Tokens per step that nanochat measured as best for its 12 layers, and the tokens that these are trained on."""
_COUNT: Final = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)([kmbt]?)")
_SUFFIX: Final = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


class ScaleRequest(Config):
    """What a plan is made from: one of `target_params`, `depth` and `dataset_tokens` has to be there."""

    target_params: int | None = Field(default=None, ge=10_000)
    depth: int | None = Field(default=None, ge=DEPTHS.start, lt=DEPTHS.stop)
    dataset_tokens: int | None = Field(default=None, ge=1, le=10**18)
    """Tokens of the corpus; alone, they choose a model that they train once."""
    aspect_ratio: int = Field(default=48, ge=1, le=1024)
    """Width per layer."""
    head_dim: int = Field(default=64, ge=8, le=512, multiple_of=8)
    vocab_size: int = Field(default=8_192, ge=300, le=262_144)
    context_size: int = Field(default=512, ge=8, le=131_072)
    world_size: int = Field(default=1, ge=1, le=64)
    per_device_batch_size: int | None = Field(default=8, ge=1)
    """Rows per rank and forward pass; None takes as many as fit the device."""
    grad_accum_steps: int | None = Field(default=None, ge=1)
    """None: as many as bring the step nearest to Step Law's tokens."""
    global_batch_tokens: int | None = Field(default=None, ge=1, le=2**60)
    """Tokens per optimizer step over all ranks, instead of `grad_accum_steps`."""
    target_param_data_ratio: float = Field(default=20.0, ge=0.01, le=10_000)
    attn_backend: AttentionBackend = "auto"
    gate_profile: GateProfile = "skill_release"
    device: str = "h100"
    """A GPU of `device_classes.py`, or cpu."""

    @model_validator(mode="after")
    def _says_how_large(self) -> "ScaleRequest":
        if self.target_params is None and self.depth is None and self.dataset_tokens is None:
            raise SpecError(
                Code.INVALID_VALUE,
                "nothing says how large the model is to be; give --target-params, --depth or --dataset-tokens",
                param="target_params",
            )
        if self.target_params is not None and self.depth is not None:
            raise SpecError(
                Code.INVALID_VALUE,
                "depth and target_params both say how large the model is to be; give one of them",
                param="depth",
            )
        return self


@dataclass(frozen=True, kw_only=True)
class ScalePlan:
    """A run spec and what follows from it."""

    request: ScaleRequest
    spec: dict[str, Any]
    """As YAML would hold it: values that differ from a run spec's defaults."""
    base: BaseConfig
    """As the base stage will get it."""
    model: ModelConfig
    target_tokens: int
    law_batch_tokens: int
    """Tokens per step by Step Law, which are not always those of the plan."""
    nanochat_batch_tokens: int
    """The same by nanochat's rule, as a cross-check."""
    figures: PlanFigures
    notes: tuple[str, ...]
    """What should be thought over."""

    @property
    def batch_source(self) -> str:
        """Where the tokens of a step come from, in words."""
        request = self.request
        return (
            DERIVED if request.grad_accum_steps is None and request.global_batch_tokens is None else "given"
        )

    @property
    def epochs(self) -> float | None:
        """Over the corpus; None where its size was not given."""
        tokens = self.request.dataset_tokens
        return None if tokens is None else self.figures.planned_tokens / tokens


def plan_scale(request: ScaleRequest) -> ScalePlan:
    """Raise SpecError where no depth comes near the parameters that were asked for."""
    model = _model(request)
    parameters = num_parameters(model, request.vocab_size)
    tokens = round(request.target_param_data_ratio * parameters)
    batch = round(law_batch(tokens))
    spec = _fitting_spec(request, model, tokens, request.global_batch_tokens or batch)
    figures = _figures(request, spec)
    return ScalePlan(
        request=request,
        spec=spec,
        base=parse_mapping(spec).base_config,
        model=model,
        target_tokens=tokens,
        law_batch_tokens=batch,
        nanochat_batch_tokens=nanochat_batch(tokens),
        figures=figures,
        notes=tuple(_notes(request, model, figures)),
    )


def nanochat_batch(num_tokens: int) -> int:
    """Tokens per step that suit a training on `num_tokens`, by nanochat: what was best for its 12 layers, moved by the
    power of "Power Lines" (arXiv 2505.13738)."""
    return round(NANOCHAT_BATCH * math.pow(num_tokens / NANOCHAT_TOKENS, 0.383))


def parse_count(text: str, param: str) -> int:
    """`100m`, `2.5b`, `524,288`, `524_288` or `1e9` as a whole number; raise SpecError."""
    match = _COUNT.fullmatch(text.strip().lower().replace(",", "").replace("_", ""))
    value = math.inf if match is None else float(match[1]) * _SUFFIX[match[2]]
    if math.isinf(value):
        raise SpecError(
            Code.INVALID_VALUE,
            f"{text!r}: expected a number such as 100m, 2.5b, 524,288 or 1e9 (k, m, b and t are powers of 1,000)",
            param=param,
        )
    return round(value)


def _model(request: ScaleRequest) -> ModelConfig:
    if request.depth is not None:
        return _shape(request, request.depth)
    assert request.dataset_tokens is not None or request.target_params is not None
    wanted = request.target_params or round((request.dataset_tokens or 0) / request.target_param_data_ratio)
    shapes = [_shape(request, depth) for depth in DEPTHS]
    sizes = [num_parameters(shape, request.vocab_size) for shape in shapes]
    nearest = min(range(len(shapes)), key=lambda index: abs(sizes[index] - wanted))
    if abs(sizes[nearest] - wanted) > NEAR * wanted:
        raise SpecError(
            Code.INVALID_VALUE,
            f"no depth gives about {wanted:,} parameters with aspect_ratio {request.aspect_ratio} and a vocabulary of "
            f"{request.vocab_size:,}: 1 to {DEPTHS[-1]} layers have {sizes[0]:,} to {sizes[-1]:,}, and the nearest is "
            f"depth {DEPTHS[nearest]} with {sizes[nearest]:,}; change these, or give a depth",
            param="target_params",
        )
    return shapes[nearest]


def _shape(request: ScaleRequest, depth: int) -> ModelConfig:
    multiple = math.lcm(WIDTH_MULTIPLE, request.head_dim)
    width = max(1, round(depth * request.aspect_ratio / multiple)) * multiple
    heads = width // request.head_dim
    return ModelConfig(
        n_layer=depth,
        n_head=heads,
        n_kv_head=_kv_heads(heads),
        n_embd=width,
        sequence_len=request.context_size,
    )


def _kv_heads(heads: int) -> int:
    """The divisor of `heads` that is nearest to a third of them."""
    return min((n for n in range(1, heads + 1) if heads % n == 0), key=lambda n: abs(n - heads / 3))


def _fitting_spec(request: ScaleRequest, model: ModelConfig, tokens: int, batch: int) -> dict[str, Any]:
    """The first of these that fits the device: as it is, with blocks computed again, with the states shared out."""
    memory_savers: list[dict[str, Any]] = [{}, {"checkpointing": True}]
    if request.world_size > 1:
        memory_savers.append({"checkpointing": True, "strategy": "fsdp"})
    spec: dict[str, Any] = {}
    for saver in memory_savers:
        rows = request.per_device_batch_size or _largest_batch(request, model, tokens, batch, saver)
        spec = _spec(request, model, tokens, batch, rows, **saver)
        if _fits(request, spec):
            break
    return spec


def _largest_batch(
    request: ScaleRequest, model: ModelConfig, tokens: int, batch: int, saver: dict[str, Any]
) -> int:
    """The largest power of two that fits the device, is no more than the step's share of a rank, and divides that share
    where the tokens of a step are given."""
    share = max(1, batch // (request.world_size * request.context_size))
    rows = 1
    while 2 * rows <= share and (request.global_batch_tokens is None or share % (2 * rows) == 0):
        if not _fits(request, _spec(request, model, tokens, batch, 2 * rows, **saver)):
            break
        rows *= 2
    return rows


def _fits(request: ScaleRequest, spec: dict[str, Any]) -> bool:
    figures = _figures(request, spec)
    return figures.memory.total <= FULL * figures.device_memory_bytes


def _figures(request: ScaleRequest, spec: dict[str, Any]) -> PlanFigures:
    return plan_figures(run_plan(parse_mapping(spec)), planned_machine(request.device, request.world_size))


def _spec(
    request: ScaleRequest,
    model: ModelConfig,
    tokens: int,
    batch: int,
    rows: int,
    *,
    checkpointing: bool = False,
    strategy: str = "ddp",
) -> dict[str, Any]:
    micro = MicroBatch(rows=rows, sequence_len=request.context_size, num_ranks=request.world_size)
    accumulation = accumulation_steps(
        micro,
        grad_accum_steps=request.grad_accum_steps,
        global_batch_tokens=request.global_batch_tokens,
        law_tokens=batch,
    )
    steps = max(1, round(tokens / (micro.tokens * accumulation)))
    given = request.global_batch_tokens
    saved = {"gradient_checkpointing": True} if checkpointing else {}
    base = {
        "model": model.model_dump(include={"n_layer", "n_head", "n_kv_head", "n_embd", "sequence_len"}),
        "dataset_mode": "packed",
        "max_steps": steps,
        "device_batch_size": rows,
        **({"grad_accum_steps": accumulation} if given is None else {"global_batch_tokens": given}),
        "weight_decay": None,
        "warmup_steps": max(1, law_warmup(steps), round(WARMUP_SHARE * steps)),
        "val_fraction": round(min(0.1, max(0.0005, 4e6 / tokens)), 4),
        "eval_every": max(1, round(steps / 24)),
        "checkpoint_every": max(1, min(1_000, round(steps / 24))),
        "early_stop_patience": 4,
        "attn_backend": request.attn_backend,
        "canary_count": 16 if tokens >= 10**8 else 4,
        "loss_spike_rollback": True,
        **saved,
    }
    return {
        "name": f"plan-{_short(num_parameters(model, request.vocab_size))}",
        "dataset": {"sft_rows": GENERATED_ROWS, "eval_rows": 200},
        "preflight": {"target_param_data_ratio": request.target_param_data_ratio},
        "tokenizer": {"type": "bpe", "vocab_size": request.vocab_size},
        "base": base,
        "sft": {**_sft(request, rows, _base_rate(request, base)), **saved},
        "gate": {"profile": request.gate_profile},
        "resources": {
            "device": "cpu" if request.device.lower() == "cpu" else "cuda",
            "nproc_per_node": request.world_size,
            **({"distributed_strategy": strategy} if strategy != "ddp" else {}),
        },
    }


def _base_rate(request: ScaleRequest, base: dict[str, Any]) -> float:
    config = stage_config(validated(BaseSection, base), request.world_size)
    return effective_learning_rate(config, request.world_size)


def _sft(request: ScaleRequest, rows: int, base_rate: float) -> dict[str, Any]:
    """Three epochs over the generated rows, in steps of about 32, in micro-batches no larger than the base stage's, at
    a twentieth of its rate: what the presets have."""
    micro = max(1, min(rows, SFT_ROWS_PER_STEP // request.world_size))
    accumulation = max(1, round(SFT_ROWS_PER_STEP / (micro * request.world_size)))
    step_rows = micro * accumulation * request.world_size
    steps = max(24, round(SFT_EPOCHS * 0.9 * GENERATED_ROWS / step_rows))
    return {
        "max_steps": steps,
        "device_batch_size": micro,
        "grad_accum_steps": accumulation,
        "learning_rate": float(f"{min(MOST_SFT_RATE, base_rate / 20):.1e}"),
        "warmup_steps": max(1, round(0.08 * steps)),
        "eval_every": max(1, round(steps / 10)),
        "checkpoint_every": max(1, round(steps / 3)),
        "early_stop_patience": 4,
        "attn_backend": request.attn_backend,
    }


def _notes(request: ScaleRequest, model: ModelConfig, figures: PlanFigures) -> list[str]:
    notes = []
    share = figures.memory.total / figures.device_memory_bytes
    if share > FULL:
        notes.append(
            f"memory: {share:.0%} of a {request.device} is over {FULL:.0%}; take fewer rows per device, a larger device, or "
            "more ranks"
        )
    if request.world_size > MACHINE_GPUS:
        notes.append(
            f"ranks: {request.world_size} in one machine; for machines with {MACHINE_GPUS} GPUs set resources.nproc_per_node "
            f"to {MACHINE_GPUS}, and resources.nnodes and resources.rdzv_endpoint as docs/distributed.md says"
        )
    releases = request.gate_profile in ("first_release", "skill_release")
    if releases and request.target_param_data_ratio < 18:
        notes.append(
            f"tokens: preflight blocks {request.gate_profile} under 18 tokens per parameter; this plan has "
            f"{request.target_param_data_ratio:g}"
        )
    body, (smallest, largest) = num_body_parameters(model), LAW_PARAMETERS
    if not 0.9 * smallest <= body <= 1.1 * largest:
        notes.append(
            f"learning rate: Step Law was fitted from {smallest:,} to {largest:,} parameters, and this model has {body:,} "
            "without embedding; `picochat train lr-range` measures"
        )
    epochs = figures.planned_tokens / request.dataset_tokens if request.dataset_tokens else 0
    if epochs > 12:
        notes.append(f"corpus: {epochs:,.0f} epochs; preflight warns over 12 and blocks over 30")
    return notes


def _short(count: int) -> str:
    for size, suffix in ((10**9, "b"), (10**6, "m"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{suffix}"
    return str(count)
