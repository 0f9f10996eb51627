"""Checks of stopping and going on: a resume that must be refused is, and one that may go on gives the same training."""

from typing import Any, Final

from picochat_contract.errors import Code, ContractError

from picochat_trainer.sanity import sample_run
from picochat_trainer.sanity.check import Finding, failed, judged, passed
from picochat_trainer.sanity.setup import SEED, Setup

STEPS: Final = 8
STOP_AFTER: Final = 5  # between two checkpoints of `checkpoint_every`, after the first validation
GPU_LIMIT: Final = 5e-3
NO_DROPOUT: Final = ("flex", "fa3")


def check_fingerprint_guard(setup: Setup) -> Finding:
    """A training that was stopped is not taken up with another rate, nor on another corpus; both are named."""
    run_dir = setup.folder / "guard"
    sample_run.prepare(run_dir)
    sample_run.train(setup, run_dir, sample_run.config(setup, stop_after_steps=2))
    limit = "fingerprint_mismatch that names the difference"
    changed_config = _refusal(setup, run_dir, learning_rate=1.25e-3)
    sample_run.prepare(run_dir, seed=SEED + 1)
    changed_corpus = _refusal(setup, run_dir)
    if changed_config is None or "learning_rate" not in changed_config:
        return failed(changed_config or "went on", limit, "another learning rate was not refused by its name")
    if changed_corpus is None or "tokens" not in changed_corpus:
        return failed(changed_corpus or "went on", limit, "another corpus was not refused by its name")
    return passed("refused", limit, "refused another base.learning_rate, and another corpus by its tokens")


def check_resume_determinism(setup: Setup) -> Finding:
    """Straight through, or stopped and taken up by the real loop and checkpoint: the same losses, and the same weights."""
    dropout = 0.0 if setup.attn_backend in NO_DROPOUT else 0.1
    changes: dict[str, Any] = {"max_steps": STEPS, "ema_decay": 0.9, "dataset_mode": "packed"}
    settings = sample_run.config(setup, **changes)
    # With dropout, so that a random state that is lost shows.
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"dropout": dropout})})
    straight_dir, stopped_dir = setup.folder / "straight", setup.folder / "stopped"
    for run_dir in (straight_dir, stopped_dir):
        sample_run.prepare(run_dir)
    straight = sample_run.train(setup, straight_dir, settings)
    first = sample_run.train(setup, stopped_dir, settings.model_copy(update={"stop_after_steps": STOP_AFTER}))
    again = sample_run.train(setup, stopped_dir, settings)
    limit = f"{_words(setup)} over {STEPS} steps"
    if (first.num_steps, again.num_steps) != (STOP_AFTER, STEPS):
        return failed(
            None,
            limit,
            f"stopped at step {first.num_steps}, ended at {again.num_steps}: expected {STOP_AFTER} and {STEPS}",
        )
    difference = max(
        abs(left - right) / left
        for left, right in zip(straight.train_losses, again.train_losses, strict=True)
    )
    equal_bits = straight == again
    return judged(
        difference <= GPU_LIMIT if setup.on_gpu else equal_bits,
        difference,
        limit,
        f"largest relative difference of losses; last weights {'equal' if equal_bits else 'not equal'} bit for bit, "
        f"dropout {dropout:g}, EMA, stopped after step {STOP_AFTER}",
    )


def _words(setup: Setup) -> str:
    return f"losses within {GPU_LIMIT:g} relative" if setup.on_gpu else "losses and weights bit-equal"


def _refusal(setup: Setup, run_dir: Any, **changes: Any) -> str | None:
    """The message with which a training here is refused; None where it went on."""
    try:
        sample_run.train(setup, run_dir, sample_run.config(setup, **changes))
    except ContractError as error:
        return error.message if error.code is Code.FINGERPRINT_MISMATCH else f"{error.code}: {error.message}"
    return None
