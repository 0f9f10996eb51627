"""Print docs/scales.md from the presets themselves: `python tools/scales_page.py > docs/scales.md`.

A test compares the two.
"""

import sys
from collections.abc import Callable

from picochat_contract.device_classes import CPU_FLOAT32, GPU_CLASSES, planned_machine
from picochat_contract.plan_figures import plan_figures
from picochat_contract.scales import SCALES
from picochat_contract.scales_facts import ScaleFacts, run_plan, scale_facts

TEXT = """\
# Scales

A scale is a preset: the values that `scale: NAME` of a run spec fills in below the user's own, or `--scale NAME` of
`picochat run tiny`. Each passes its own preflight as `ready` on a corpus and a machine that fit it, and plans about 20
training tokens per parameter (Hoffmann et al., arXiv 2203.15556); smoke, demo, tiny and small-local are trials and plan fewer.
Everything below is computed from the presets by the code that preflight uses; a test compares the parameters with the built models.

## Shapes

{shapes}

Heads are query/key-value. No linear layer, norm or embedding has a bias. A `-seq` preset differs from the one before it
only in its residual: with a sequential one, RMSNorm, RoPE and SwiGLU, the weights map one to one to Hugging Face's
Qwen3ForCausalLM. The other presets for GPUs have the mission's parallel residual, which has no stock class.

No preset but those for GPUs chooses a device: `--device` does, `cpu` or `cuda` (`auto` takes CUDA where there is one). `mps-local` is
the mission's name for its shape; Apple's MPS is not supported, there it trains on the CPU.

## Training

{training}

Micro-batch is rows per rank and forward pass x accumulation steps x ranks. What has a star is derived: Step Law
(arXiv 2503.04715) for accumulation and learning rate, "Power Lines" (arXiv 2505.13738) for the weight decay. `learning_rate:
null` and `weight_decay: null` derive them anywhere, `grad_accum_steps: null` the accumulation, which a spec without a preset
derives where it gives neither that nor `global_batch_tokens` ([training.md](training.md#batch)). All presets use AdamW;
`base.optimizer: muon` needs no other value changed.

## Memory and time

{cost}

Memory is that of one device in the larger of base and SFT training, estimated as in [preflight.md](preflight.md); the
device's own is by its data sheet. Time is {share:.0%} of the device's bf16 peak, or {cpu:.0f} GFLOP/s per core on eight CPU
cores without bf16 instructions; neither generation for the evals nor data work is counted. Measure before you pay:
`picochat sanity preh100` and `picochat run tiny --dry-run-steps 100`.

The 1B presets compute their blocks again in the backward pass, as the mission's do. That costs a third more operations and
leaves room on 80 GB; on 141 GB `base.gradient_checkpointing: false` fits as well: {without}.

## A scale of one's own

    picochat scale plan --target-params 300m --world-size 8 --device h100 --out plan.yaml

derives depth, width and heads from the number of parameters, tokens from their ratio, the batch from Step Law (beside it
stands nanochat's rule), rates, warm-up, steps, SFT, memory and time. It prints a command to copy; `--out` writes a run
spec. Where the plan does not fit the device, blocks are computed again, then weights and optimizer are shared out (fsdp).
"""


def page() -> str:
    facts = [scale_facts(scale) for scale in SCALES]
    return TEXT.format(
        shapes=_table(
            ("scale", "layers", "width", "heads", "MLP", "context", "vocabulary", "parts", "parameters"),
            facts,
            _shape,
        ),
        training=_table(
            (
                "scale",
                "steps",
                "micro-batch",
                "tokens/step",
                "planned tokens",
                "per parameter",
                "rate",
                "decay",
                "gate",
            ),
            facts,
            _training,
        ),
        cost=_table(("scale", "on", "memory", "of", "states", "activations", "logits", "time"), facts, _cost),
        share=GPU_CLASSES[0].utilisation,
        cpu=CPU_FLOAT32.peak_flops / 1e9,
        without=_without_checkpointing("h200-1b-ddp8"),
    )


def _table(titles: tuple[str, ...], facts: list[ScaleFacts], row: Callable[[ScaleFacts], list[str]]) -> str:
    lines = [f"| {' | '.join(titles)} |", "|---|" + "---:|" * (len(titles) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row(one))} |" for one in facts)])


def _shape(facts: ScaleFacts) -> list[str]:
    model = facts.spec.base.model
    parts: list[str] = [model.norm_type, model.position_encoding, model.activation]
    parts += ["QK norm"] if model.qk_norm else []
    parts += ["parallel"] if model.parallel_residual else []
    parts += ["tied"] if model.tie_embeddings else []
    return [
        facts.scale,
        str(model.n_layer),
        f"{model.n_embd:,}",
        f"{model.n_head}/{model.num_kv_heads}",
        f"{model.hidden:,}",
        f"{model.sequence_len:,}",
        f"{facts.figures.vocab_size:,}",
        ", ".join(parts),
        f"{facts.figures.parameters:,}",
    ]


def _training(facts: ScaleFacts) -> list[str]:
    base, figures, ranks = facts.spec.base_config, facts.figures, facts.spec.resources.num_ranks
    return [
        facts.scale,
        f"{base.max_steps:,}",
        f"{base.device_batch_size} x {base.grad_accum_steps}{'*' if base.batch_source == 'derived' else ''} x {ranks}",
        f"{figures.tokens_per_step:,}",
        f"{figures.planned_tokens:,}",
        f"{figures.tokens_per_parameter:.1f}",
        f"{figures.learning_rate:.2g}{'*' if base.learning_rate is None else ''}",
        f"{figures.weight_decay:.2g}{'*' if base.weight_decay is None else ''}",
        facts.spec.gate.profile,
    ]


def _cost(facts: ScaleFacts) -> list[str]:
    figures, memory = facts.figures, facts.figures.memory
    states = memory.parameters + memory.gradients + memory.optimizer + memory.ema + memory.snapshot
    return [
        facts.scale,
        f"{facts.spec.resources.num_ranks} x {facts.device}",
        _size(memory.total),
        _size(figures.device_memory_bytes),
        _size(states),
        _size(memory.activations),
        _size(memory.logits),
        _time(figures.hours),
    ]


def _without_checkpointing(scale: str) -> str:
    facts = scale_facts(scale)
    plan = run_plan(facts.spec)
    faster = plan.model_copy(update={"base": plan.base.model_copy(update={"gradient_checkpointing": False})})
    figures = plan_figures(faster, planned_machine(facts.device, plan.resources.nproc_per_node))
    return f"{_size(figures.memory.total)} and {_time(figures.hours)}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _time(hours: float | None) -> str:
    assert hours is not None  # presets are for devices that are known
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"


if __name__ == "__main__":
    sys.stdout.write(page())
