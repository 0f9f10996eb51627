"""What a report says of a training in words: its curves, its settings, its speed."""

from collections.abc import Sequence
from typing import Any

from picochat_contract import layout
from picochat_contract.batch_size import source_in_words
from picochat_contract.configs import BaseConfig, OptimConfig
from picochat_contract.learning_rates import (
    LAW_WARMUP,
    MOST_WARMUP,
    effective_learning_rate,
    effective_warmup_steps,
    effective_weight_decay,
    rows_per_step,
)

from picochat_trainer.training.checkpoint import LossPoint

GAP = 1.0  # nats between validation and training loss that smell of memorization
REGRESSION = 0.25  # nats that validation got worse since its best
_MAX_ROWS = 40
_MAX_NAMED = 10  # steps with a spike


def loss_diagnostics(losses: Sequence[LossPoint]) -> dict[str, Any]:
    """Compare the ends of the curves and the best validation."""
    validated = [p for p in losses if p.val_loss is not None]
    trained = [p.train_loss for p in losses if p.train_loss is not None]
    if not validated or not trained:
        return {"status": "unknown", "message": "nothing was measured"}
    first, last = validated[0], validated[-1]
    best = min(validated, key=lambda point: point.val_loss or 0.0)
    assert first.val_loss is not None and last.val_loss is not None and best.val_loss is not None
    gap, regression = last.val_loss - trained[-1], last.val_loss - best.val_loss
    status, message = _judge(gap, regression, best.step)
    return {
        "status": status,
        "message": message,
        "final_train_loss": trained[-1],
        "final_val_loss": last.val_loss,
        "best_val_loss": best.val_loss,
        "best_step": best.step,
        "gap": gap,
        "regression": regression,
    }


def optimization(config: OptimConfig, num_ranks: int) -> dict[str, Any]:
    """`optimization` of a report: what the optimizer was really given, and where it comes from."""
    is_base = isinstance(config, BaseConfig)
    return {
        "optimizer": config.optimizer if isinstance(config, BaseConfig) else "adamw",
        "learning_rate": effective_learning_rate(config, num_ranks),
        "learning_rate_source": _rate_source(config, is_base),
        "weight_decay": effective_weight_decay(config, num_ranks),
        "weight_decay_source": "given"
        if config.weight_decay is not None
        else ("derived (arXiv 2505.13738)" if is_base else "default of SFT"),
        "lr_decay": config.lr_decay,
        "warmup_steps": effective_warmup_steps(config),
        "warmup_steps_source": _warmup_source(config),
        "rows_per_step": rows_per_step(config, num_ranks),
        "rows_per_step_source": source_in_words(config),
        "grad_clip": config.grad_clip or None,
        "ema_decay": config.ema_decay or None,
    }


def loss_table(losses: Sequence[LossPoint]) -> list[str]:
    """Markdown rows of the points with a validation."""
    rows = [p for p in losses if p.val_loss is not None]
    every = -(-len(rows) // _MAX_ROWS) or 1
    kept = [p for i, p in enumerate(rows) if i % every == 0 or p is rows[-1]]
    lines = ["| step | train loss | val loss | val BPB | learning rate |", "|---:|---:|---:|---:|---:|"]
    for p in kept:
        validated = (with_error(p.val_loss, p.val_loss_stderr), with_error(p.val_bpb, p.val_bpb_stderr))
        cells = [_number(p.train_loss), *validated, _number(p.learning_rate, 6)]
        lines.append(f"| {p.step} | {' | '.join(cells)} |")
    return lines


def with_error(value: float | None, stderr: float | None) -> str:
    """A measure and its standard error; the measure alone where none is known."""
    return _number(value) if stderr is None else f"{_number(value)} +- {stderr:.3f}"


def training_lines(report: dict[str, Any]) -> list[str]:
    """What both training stages tell of how they trained."""
    found, throughput = report["optimization"], report["throughput"]
    mean = f", mean of the weights with decay {found['ema_decay']:g}" if found["ema_decay"] else ""
    return [
        f"- {found['optimizer']} at learning rate {found['learning_rate']:.3g} ({found['learning_rate_source']}), "
        f"{found['warmup_steps']} steps of warm-up ({found['warmup_steps_source']}), {found['lr_decay']} decay, "
        f"weight decay {found['weight_decay']:.3g} ({found['weight_decay_source']}), "
        f"{found['rows_per_step']} rows per step ({found['rows_per_step_source']}){mean}.",
        f"- Steps with NaN or Infinity: {report['num_nonfinite_steps']}.",
        f"- Loss spikes: {_spikes_text(report['loss_spikes'], is_undone=bool(throughput['rollbacks']))}.",
        f"- {throughput_text(throughput)}",
        f"- {_cost_text(throughput)}",
        f"- Curves: [{layout.CURVES}]({layout.CURVES}), drawn below.",
    ]


def curve_lines() -> list[str]:
    """The curves as a picture that lies beside the report."""
    return [f"![loss, learning rate and gradient norm by step]({layout.CURVES_PNG})"]


def throughput_text(throughput: dict[str, Any]) -> str:
    """Speed of the steps, in one sentence."""
    speed = throughput["tokens_per_second"]
    how = f"{throughput['precision']}, {'compiled' if throughput['compiled'] else 'eager'}"
    where = f"on {throughput['num_ranks']} x {throughput['device']} ({how})"
    if not speed:
        return f"No step was done in this process, {where}."
    return (
        f"{speed:,.0f} tokens/s {where}, {throughput['tokens_per_second_with_pauses']:,.0f} with validation and "
        f"checkpoints; {throughput['gflops_per_second']:,.1f} GFLOP/s, an MFU of {throughput['mfu']:.1%} of "
        f"{throughput['peak']['flops_per_second'] / 1e9:,.0f} GFLOP/s per rank ({throughput['peak']['source']})."
    )


def _cost_text(throughput: dict[str, Any]) -> str:
    first, energy = throughput["first_step_seconds"], throughput["energy_joules"]
    begun = "" if first is None else f"First step {first:.1f} s after the process began; "
    spent = f"{energy:,.0f} J of all its GPUs" if energy is not None else throughput["energy_note"]
    waited = (
        ""
        if throughput["data_wait_share"] is None
        else f" ({throughput['data_wait_share']:.1%} waiting for data)"
    )
    return (
        f"{begun}{throughput['train_seconds']:.1f} s of steps{waited}, "
        f"{throughput['compile_seconds']:.1f} s of compiling, {throughput['validate_seconds']:.1f} s of validation, "
        f"{throughput['checkpoint_seconds']:.1f} s of waiting for checkpoints; memory peak "
        f"{throughput['memory_peak_bytes'] / 2**20:,.0f} MiB; {spent}."
    )


def _spikes_text(steps: Sequence[int], *, is_undone: bool) -> str:
    """Where the loss jumped; a training undoes all of its spikes or none."""
    if not steps:
        return "none"
    named = ", ".join(map(str, steps[:_MAX_NAMED])) + (" and others" if len(steps) > _MAX_NAMED else "")
    return f"{len(steps)}, at step {named}; {'undone' if is_undone else 'trained on'}"


def _warmup_source(config: OptimConfig) -> str:
    if config.warmup_steps is not None:
        return "given"
    is_cut = effective_warmup_steps(config) < LAW_WARMUP
    return (
        f"{MOST_WARMUP:g} of the steps, of {LAW_WARMUP} by arXiv 1910.04209"
        if is_cut
        else "derived (arXiv 1910.04209)"
    )


def _rate_source(config: OptimConfig, is_base: bool) -> str:
    if config.learning_rate is None:
        return "derived by Step Law, arXiv 2503.04715" if is_base else "default of SFT"
    return "given x sqrt(rows per step / 8)" if config.auto_lr_scaling else "given"


def _judge(gap: float, regression: float, best_step: int) -> tuple[str, str]:
    if gap >= GAP and regression >= REGRESSION:
        return "memorization-risk", (
            f"validation got worse by {regression:.2f} after step {best_step} while training went on falling; "
            f"the checkpoint of step {best_step} is the one to use"
        )
    if regression >= REGRESSION:
        return "watch-val-regression", f"validation got worse by {regression:.2f} after step {best_step}"
    if gap >= GAP:
        return "watch-gap", f"held-out text is {gap:.2f} nats per token harder than training text"
    return "stable", "training and validation loss moved together"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"
