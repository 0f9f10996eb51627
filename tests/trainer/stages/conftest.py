"""A run folder as the stages before fit and eval leave it, with a random model small enough for milliseconds."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.configs import ModelConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.manifest import StageJob
from picochat_contract.spec import validated
from picochat_contract.stages import STAGES, StageName
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.process import STAGE_MODULES
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.training.checkpoint import Metadata, Weights, save_weights
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft
from picochat_trainer.tuning.rows import to_jsonl

RunStage = Callable[..., dict[str, float]]


@pytest.fixture
def run_stage(tmp_path: Path) -> RunStage:
    """Run a stage's module over the run folder `tmp_path` in this process."""

    def start(
        name: str, config: dict[str, Any] | None = None, paths: dict[str, str] | None = None
    ) -> dict[str, float]:
        stage = StageName(name)
        context = StageContext(tmp_path, StageJob(stage=stage, config=config or {}, paths=paths or {}))
        module = importlib.import_module(f"picochat_trainer.stages.{STAGE_MODULES[stage]}")
        try:
            metrics: dict[str, float] = module.run(context, validated(STAGES[stage].config, config or {}))
        finally:
            context.events.close()
        for output in context.outputs:
            assert context.path(output).exists(), output
        return metrics

    return start


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Data, tokenizer, a random checkpoint and an SFT report, but no evidence from fit and eval yet."""
    save_tokenizer(
        train_tokenizer(TokenizerConfig(type="byte"), []),
        tmp_path / layout.TOKENIZER,
        tmp_path / layout.TOKENIZER_CONFIG,
    )
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=256), 260)
    model.init_weights(1)
    checkpoint = tmp_path / layout.SFT_CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    save_weights(
        checkpoint,
        Weights(tensors=model.state_dict(), config=model.config, vocab_size=260),
        Metadata(kind="best_validation", step=1),
    )
    (tmp_path / layout.CORPUS).write_text("A short corpus.\n")
    (tmp_path / layout.CHAT).write_text(to_jsonl(generate_sft(60, seed=1)))
    (tmp_path / layout.EVAL).write_text(to_jsonl(generate_eval(20, seed=1)))
    lines = list(range(1, 61))
    report = {"dataset": {"train_lines": lines[:50], "val_lines": lines[50:]}}
    (tmp_path / layout.SFT_REPORT).write_text(json.dumps(report))
    return tmp_path
