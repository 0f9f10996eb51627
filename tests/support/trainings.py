"""A training small enough to run in a test in this process: pattern text, two layers, validation by a fixed number."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.manifest import StageJob
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training.loop import Outcome
from picochat_trainer.training.reader import Batching, BatchSource, WindowReader
from picochat_trainer.training.resume import Training
from picochat_trainer.training.tokens import ArrayTokens
from picochat_trainer.training.validation import Validation, Validator

T, VOCAB = 16, 50
MODEL = ModelConfig(n_layer=2, n_head=2, n_embd=16, sequence_len=T)
# A text with a pattern, so that there is something to learn.
TOKENS = (np.arange(3000) * 7 % 13 + np.random.default_rng(0).integers(0, 2, 3000)).astype(np.uint16)
SETTINGS = {
    "model": MODEL,
    "max_steps": 12,
    "device_batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 2,
    "eval_every": 4,
    "checkpoint_every": 100,
    "log_every": 1,
    "precision": "float32",
    "compile": "off",
}


def tiny_model() -> GPT:
    made = GPT(MODEL, VOCAB)
    made.init_weights(1)
    return made


def always_one(model: GPT) -> Validation:
    return Validation(loss=1.0)


def tiny_training(
    model: GPT,
    validator: Validator = always_one,
    fingerprint: dict[str, Any] | None = None,
    wrap: Callable[[WindowReader], BatchSource] = lambda reader: reader,
    **changes: Any,
) -> Training:
    """A training by settings; `wrap` may put a reader around the reader."""
    config = BaseConfig(**{**SETTINGS, **changes})
    batching = Batching(
        sequence_len=T,
        device_batch_size=config.device_batch_size,
        grad_accum_steps=config.grad_accum_steps,
        seed=1,
    )
    return Training(
        model=model,
        batches=wrap(WindowReader(ArrayTokens(TOKENS), batching)),
        validator=validator,
        config=config,
        fingerprint=fingerprint or {"config": config.model_dump(mode="json")},
        best="base/best_checkpoint",
        resume="base/resume_checkpoint",
    )


def base_context(run_dir: Path) -> StageContext:
    return StageContext(run_dir, StageJob(stage="base", config={}))


def read_events(run_dir: Path, type: str) -> list[dict[str, Any]]:
    lines = (run_dir / "stages/base/events.jsonl").read_text().splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["type"] == type]


def train_losses(outcome: Outcome) -> list[float]:
    return [p.train_loss for p in outcome.state.losses if p.train_loss is not None]
