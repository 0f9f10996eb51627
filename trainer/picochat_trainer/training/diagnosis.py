"""What the loss curves say, in one word and one sentence; and the curves as a table."""

from collections.abc import Sequence
from typing import Any

from picochat_trainer.training.checkpoint import LossPoint

# Nats. A gap of 1.0 means that training tokens are e times as likely as held-out ones.
GAP = 1.0
REGRESSION = 0.25
_MAX_ROWS = 40  # of a table in a report


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


def loss_table(losses: Sequence[LossPoint]) -> list[str]:
    """Markdown rows of the points with a validation."""
    rows = [p for p in losses if p.val_loss is not None]
    every = -(-len(rows) // _MAX_ROWS) or 1
    kept = [p for i, p in enumerate(rows) if i % every == 0 or p is rows[-1]]
    lines = ["| step | train loss | val loss | val BPB | learning rate |", "|---:|---:|---:|---:|---:|"]
    for p in kept:
        cells = [_number(p.train_loss), _number(p.val_loss), _number(p.val_bpb), _number(p.learning_rate, 6)]
        lines.append(f"| {p.step} | {' | '.join(cells)} |")
    return lines


def throughput_text(throughput: dict[str, Any]) -> str:
    """One sentence for a report."""
    speed = throughput["tokens_per_second"]
    shown = f"{speed:,.0f} tokens/s" if speed else "no step was done in this process"
    how = f"{throughput['precision']}, {'compiled' if throughput['compiled'] else 'eager'}"
    return (
        f"{shown} on {throughput['device']} ({how}); {throughput['train_seconds']:.1f} s of steps, "
        f"{throughput['compile_seconds']:.1f} s of compiling, {throughput['validate_seconds']:.1f} s of validation, "
        f"{throughput['checkpoint_seconds']:.1f} s of checkpoints."
    )


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
