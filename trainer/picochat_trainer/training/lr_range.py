"""Learning-rate range test: a short training whose rate rises at each step until the loss leaves (arXiv 1506.01186).

The rate rises exponentially, so that each step multiplies it by the same number. Two rates are read from the curve of the
smoothed loss: that where it falls fastest, and a tenth of that where the loss leaves, or is lowest if it never leaves; the
smaller of the two is recommended. The test knows nothing of the length of the training to come: a long one bears less.
Smoothing makes the curve lag, by about 1 / (1 - beta) steps at most; the rates are those at which it was measured.

B rows, T tokens
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from picochat_contract.configs import BaseConfig, Device, Resources
from picochat_contract.errors import Code, ContractError
from torch import nn

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.model import GPT
from picochat_trainer.model.gpt import IGNORE_INDEX, choose_backend
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.hardware import (
    autocast,
    autocast_dtype,
    describe,
    resolve_device,
    set_threads,
)
from picochat_trainer.training.optim import make_optimizer, set_learning_rate
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for
from picochat_trainer.training.reader import BatchSource

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT: Final = "picochat-lr-range"
MARGIN: Final = 10
"""How far below the rate where the loss leaves a training is told to stay."""
SHOWN_POINTS: Final = 25


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What to try."""

    num_steps: int = 100
    min_rate: float = 1e-6
    max_rate: float = 1e-2
    divergence_factor: float = 4.0
    """The loss has left where it is this many times the lowest smoothed one, or not finite."""
    smoothing_beta: float = 0.98
    """Decay per step of the running mean of the loss."""

    def __post_init__(self) -> None:
        _demand(self.num_steps >= 10, "--steps", "at least 10", self.num_steps)
        _demand(0 < self.min_rate < self.max_rate <= 1, "--max-lr", f"over {self.min_rate:g}", self.max_rate)
        _demand(self.divergence_factor > 1, "--divergence-factor", "over 1", self.divergence_factor)
        _demand(0 <= self.smoothing_beta < 1, "--smoothing-beta", "from 0 to under 1", self.smoothing_beta)

    def rate(self, step: int) -> float:
        """The rate of `step`, which counts from 0."""
        return self.min_rate * (self.max_rate / self.min_rate) ** (step / (self.num_steps - 1))


@dataclass(frozen=True, kw_only=True)
class Point:
    """One step; its loss is that before the update."""

    step: int
    learning_rate: float
    loss: float
    smoothed_loss: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a sweep says."""

    points: tuple[Point, ...]
    diverged_at: float | None
    """The rate of the step whose loss left; None where none did."""
    lowest_at: float
    """The rate at the lowest smoothed loss."""
    steepest_at: float
    """The rate where the smoothed loss fell fastest."""
    recommended: float


def measure(
    config: BaseConfig,
    sweep: Sweep,
    *,
    tokens: Path,
    tokenizer: Path,
    device: Device,
    out_dir: Path,
    on_point: Callable[[Point], None] = lambda _: None,
) -> Found:
    """Sweep over the training side of the token store in `tokens`; write lr_range.json, lr_range.md and lr_range.png."""
    store, loaded = TokenStore.open(tokens), Tokenizer.load(tokenizer)
    place = resolve_device(device, 0)
    set_threads(Resources(device=device))
    data = read_pretraining_data(store, config, split_for(store, config))
    model = GPT(config.model, loaded.vocab_size)
    model.init_weights(config.seed)
    model.to(place)
    model.document_token = store.bos_id if config.document_mask else None
    dtype = autocast_dtype(config.precision, place)
    with autocast(place, dtype):
        choose_backend(model, config.attn_backend, place)
    found = sweep_rates(model, data.batches, config, sweep, device=place, dtype=dtype, on_point=on_point)
    facts = {
        "num_parameters": model.num_parameters(),
        "optimizer": config.optimizer,
        "rows_per_step": config.device_batch_size * config.grad_accum_steps,
        "sequence_len": config.model.sequence_len,
        "tokens_sha256": store.sha256,
        "device": describe(place),
        "precision": "float32" if dtype is None else "bf16",
    }
    write_json(out_dir / "lr_range.json", report(found, sweep, config, facts))
    write_text(out_dir / "lr_range.md", markdown(found, sweep, facts))
    # With matplotlib's version in it, equal curves would differ.
    draw(found).savefig(out_dir / "lr_range.png", format="png", metadata={"Software": None})
    return found


def sweep_rates(
    model: GPT,
    batches: BatchSource,
    config: BaseConfig,
    sweep: Sweep,
    *,
    device: str,
    dtype: torch.dtype | None,
    on_point: Callable[[Point], None] = lambda _: None,
) -> Found:
    """Train `model` on `batches` with the optimizer of `config` and the rates of `sweep`; its weights are spent."""
    optimizer = make_optimizer(model, config)
    model.train()
    points: list[Point] = []
    mean, lowest = 0.0, math.inf
    for step in range(sweep.num_steps):
        set_learning_rate(optimizer, sweep.rate(step))
        loss = _backward(model, batches, device, dtype)
        if points and not (math.isfinite(loss) and loss <= sweep.divergence_factor * lowest):
            return read_curve(points, sweep.rate(step))
        if not math.isfinite(loss):
            raise ContractError(
                Code.INVALID_VALUE,
                f"the loss of the untrained model is {loss}, so no rate can be tried; use --precision float32",
                param="--precision",
            )
        mean = sweep.smoothing_beta * mean + (1 - sweep.smoothing_beta) * loss
        smoothed = mean / (1 - sweep.smoothing_beta ** (step + 1))
        lowest = min(lowest, smoothed)
        points.append(Point(step=step, learning_rate=sweep.rate(step), loss=loss, smoothed_loss=smoothed))
        on_point(points[-1])
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
    return read_curve(points, None)


def _backward(model: GPT, batches: BatchSource, device: str, dtype: torch.dtype | None) -> float:
    """Accumulate the gradients of one optimizer step; return its loss. The host waits: the next step hangs on it."""
    batch = batches.next_step()
    total = 0.0
    for tokens_BT, targets_BT in batch.micro_batches:
        num_targets = int((targets_BT != IGNORE_INDEX).sum())
        with autocast(device, dtype):
            mean = model.loss(tokens_BT.to(device), targets_BT.to(device))
        share = mean * (num_targets / batch.num_targets)
        share.backward()
        total += float(share.detach())
    return total


def read_curve(points: Sequence[Point], diverged_at: float | None) -> Found:
    """Find the rates that the curve shows; `diverged_at` is the rate of the step behind it whose loss left."""
    if len(points) < 3:
        raise ContractError(
            Code.INVALID_VALUE,
            f"the loss left after {len(points)} steps, at a rate of {diverged_at:g}; start lower, with --min-lr "
            f"{points[0].learning_rate / 100:g}",
            param="--min-lr",
        )
    lowest = min(points, key=lambda point: point.smoothed_loss).learning_rate
    slopes = [
        (after.smoothed_loss - before.smoothed_loss) / math.log(after.learning_rate / before.learning_rate)
        for before, after in zip(points, points[2:], strict=False)
    ]
    steepest = points[1 + min(range(len(slopes)), key=slopes.__getitem__)].learning_rate
    limit = (lowest if diverged_at is None else diverged_at) / MARGIN
    return Found(
        points=tuple(points),
        diverged_at=diverged_at,
        lowest_at=lowest,
        steepest_at=steepest,
        recommended=max(min(steepest, limit), points[0].learning_rate),
    )


def report(found: Found, sweep: Sweep, config: BaseConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """Content of lr_range.json; `facts` says what was trained on what."""
    return {
        "format": FORMAT,
        "recommended_learning_rate": found.recommended,
        "steepest_learning_rate": found.steepest_at,
        "lowest_loss_learning_rate": found.lowest_at,
        "diverged_learning_rate": found.diverged_at,
        "stop_reason": "diverged" if found.diverged_at is not None else "max_lr",
        "steps": sweep.num_steps,
        "min_lr": sweep.min_rate,
        "max_lr": sweep.max_rate,
        "divergence_factor": sweep.divergence_factor,
        "smoothing_beta": sweep.smoothing_beta,
        **facts,
        "config": config.model_dump(mode="json"),
        "points": [vars(point) for point in found.points],
    }


def markdown(found: Found, sweep: Sweep, facts: dict[str, Any]) -> str:
    """lr_range.md."""
    if found.diverged_at is None:
        end = (
            f"The loss did not leave up to {found.points[-1].learning_rate:.2g}; it was lowest at "
            f"{found.lowest_at:.2g}. A higher --max-lr would show where it does"
        )
        margin = f"a tenth of the rate with the lowest loss, {found.lowest_at / MARGIN:.2g}"
    else:
        end = f"The loss left at {found.diverged_at:.2g}"
        margin = f"a tenth of the rate where the loss left, {found.diverged_at / MARGIN:.2g}"
    every = max(1, len(found.points) // SHOWN_POINTS)
    return "\n".join(
        [
            "# Learning-rate range test",
            "",
            f"Recommended: **learning_rate {found.recommended:.2g}**, the smaller of the rate where the smoothed loss "
            f"falls fastest ({found.steepest_at:.2g}) and {margin}.",
            "",
            f"{end}. {facts['num_parameters']:,} parameters, {facts['optimizer']}, {facts['rows_per_step']} rows of "
            f"{facts['sequence_len']} tokens per step, {len(found.points)} steps of {sweep.num_steps}. One rate per step "
            "is a rough measure: take it as where to begin, and lower it for a long training.",
            "",
            "| step | learning rate | loss | smoothed |",
            "|---:|---:|---:|---:|",
            *(
                f"| {point.step} | {point.learning_rate:.2e} | {point.loss:.4f} | {point.smoothed_loss:.4f} |"
                for point in found.points[::every]
            ),
            "",
        ]
    )


def draw(found: Found) -> "Figure":
    """The loss over the rate, with the rates that were read from it."""
    from matplotlib.figure import Figure  # takes half a second, which other commands need not wait for

    figure = Figure(figsize=(8.0, 5.0), dpi=110, layout="constrained")
    axes = figure.subplots()
    rates = [point.learning_rate for point in found.points]
    axes.plot(rates, [point.loss for point in found.points], color="tab:gray", linewidth=0.7, label="loss")
    axes.plot(rates, [point.smoothed_loss for point in found.points], color="tab:blue", label="smoothed")
    axes.axvline(found.steepest_at, color="tab:green", linestyle=":", label="falls fastest")
    if found.diverged_at is not None:
        axes.axvline(found.diverged_at, color="tab:red", linestyle=":", label="left")
    axes.axvline(found.recommended, color="black", label=f"recommended, {found.recommended:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss, nats per token")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def _demand(holds: bool, option: str, wanted: str, came: float) -> None:
    if not holds:
        raise ContractError(
            Code.INVALID_VALUE, f"{option} must be {wanted}, got {came:g}; give another value", param=option
        )
