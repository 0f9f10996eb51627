"""The curves of a training, as data and as a picture: losses, learning rate, gradient norm by step."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from picochat_trainer.atomic import write_text
from picochat_trainer.training.checkpoint import LossPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS: Final = tuple(LossPoint.model_fields)
_SIZE: Final = (8.0, 7.0)  # inches
_DPI: Final = 110


def write_curves(losses: Sequence[LossPoint], data: Path, picture: Path) -> None:
    """Write one row per measured step to the CSV file `data`, and the same drawn to the PNG file `picture`."""
    write_text(data, csv_text(losses))
    picture.parent.mkdir(parents=True, exist_ok=True)
    # With matplotlib's version in it, equal curves would differ.
    draw(losses).savefig(picture, format="png", metadata={"Software": None})


def csv_text(losses: Sequence[LossPoint]) -> str:
    """A header and a row per point; a cell is empty where nothing was measured."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for point in losses:
        values = (getattr(point, name) for name in COLUMNS)
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def draw(losses: Sequence[LossPoint]) -> "Figure":
    """Losses above, learning rate and gradient norm below, over the same steps."""
    from matplotlib.figure import Figure  # takes half a second, which the first step need not wait for

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    loss, rate, norm = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
    _line(loss, losses, "train_loss", "training", "tab:blue")
    _line(loss, losses, "val_loss", "validation", "tab:orange", marker="o")
    loss.set_ylabel("loss, nats per token")
    if loss.get_lines():
        loss.legend()
    _line(rate, losses, "learning_rate", "", "tab:green")
    rate.set_ylabel("learning rate")
    _line(norm, losses, "grad_norm", "", "tab:gray")
    norm.set_ylabel("gradient norm")
    norm.set_xlabel("step")
    return figure


def _line(
    axes: "Axes", losses: Sequence[LossPoint], name: str, label: str, color: str, marker: str = ""
) -> None:
    """Draw one measure, with error bars where it has a standard error."""
    axes.grid(visible=True, alpha=0.3)
    points = [point for point in losses if getattr(point, name) is not None]
    if not points:
        return
    steps, values = [p.step for p in points], [getattr(p, name) for p in points]
    axes.plot(steps, values, label=label, color=color, marker=marker, markersize=3, linewidth=1)
    errors = [getattr(p, f"{name}_stderr", None) or 0.0 for p in points]
    if any(errors):
        axes.errorbar(steps, values, yerr=errors, color=color, fmt="none", capsize=2, linewidth=1)
