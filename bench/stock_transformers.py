"""The same model, rows and settings in stock Hugging Face transformers, under StepTimes: what the training benches divide by.

    python bench/stock_transformers.py JOB_JSON STEPS_JSON STARTED     (started by the benches)

`trainer` is transformers.Trainer with TrainingArguments as they come, but for: batch, steps, AdamW's rate, betas and decay,
cosine schedule, bf16 as the job says, the rows in their order, a log every 5 steps, no checkpoints. `loop` is what one writes
by hand: torch.compile of the whole model, autocast, fused AdamW, clipping. Both begin with picochat's initial weights, so that
their losses can be held against ours.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT
from step_times import StepTimes
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import Qwen3Config, Qwen3ForCausalLM, Trainer, TrainingArguments

LEARNING_RATE, BETAS, WEIGHT_DECAY, WARMUP_STEPS = 1e-3, (0.9, 0.95), 0.1, 10


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Rows of T + 1 ids, of which the model is given the first T: it shifts its labels itself."""

    def __init__(self, path: Path) -> None:
        self._rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        tokens = torch.from_numpy(self._rows[index, :-1].astype(np.int64))
        return {"input_ids": tokens, "labels": tokens}


def stock_model(
    config: ModelConfig, vocab_size: int, *, attention: str = "sdpa", seed: int = 42
) -> Qwen3ForCausalLM:
    """Qwen3ForCausalLM of the same shape with the weights that our training begins with."""
    ours = GPT(config, vocab_size)
    ours.init_weights(seed)
    stock = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocab_size,
            hidden_size=config.n_embd,
            intermediate_size=config.hidden,
            num_hidden_layers=config.n_layer,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.sequence_len,
            rms_norm_eps=config.norm_eps,
            tie_word_embeddings=config.tie_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            use_cache=False,
            attn_implementation=attention,
        )
    )
    if not config.parallel_residual:  # which has no stock class: the shape is the same, the function is not
        missing = stock.load_state_dict(ours.state_dict(), strict=False)
        assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing
    count = sum(parameter.numel() for parameter in stock.parameters())
    if count != ours.num_parameters():
        raise SystemExit(f"the stock model has {count} parameters, ours has {ours.num_parameters()}")
    return stock


def run_trainer(job: dict[str, Any], times: StepTimes) -> None:
    model = stock_model(ModelConfig(**job["model"]), job["vocab_size"])
    arguments = TrainingArguments(
        output_dir=job["folder"],
        per_device_train_batch_size=job["rows"],
        max_steps=job["num_steps"] + 1,
        learning_rate=LEARNING_RATE,
        adam_beta2=BETAS[1],
        weight_decay=WEIGHT_DECAY,
        lr_scheduler_type="cosine",
        warmup_steps=WARMUP_STEPS,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        train_sampling_strategy="sequential",
        use_cpu=not torch.cuda.is_available(),
        bf16=job["bf16"],
        torch_compile=job["compile"],
    )
    register_optimizer_step_post_hook(times.stamp)
    Trainer(model=model, args=arguments, train_dataset=Rows(Path(job["rows_file"]))).train()


def run_loop(job: dict[str, Any], times: StepTimes) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = stock_model(ModelConfig(**job["model"]), job["vocab_size"]).to(device)
    if job.get("gradient_checkpointing"):
        model.gradient_checkpointing_enable()
    module = torch.compile(model) if job["compile"] else model
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(
        groups, lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    register_optimizer_step_post_hook(times.stamp)
    batches = _batches(Path(job["rows_file"]), job["rows"], device)
    for _ in range(job["num_steps"] + 1):
        for _ in range(job["grad_accum_steps"]):
            tokens = next(batches)
            with torch.autocast(device, dtype=torch.bfloat16, enabled=job["bf16"]):
                loss = module(input_ids=tokens, labels=tokens).loss
            (loss / job["grad_accum_steps"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _batches(path: Path, rows: int, device: str) -> Iterator[Tensor]:
    """Endless batches; the file is read over and over where the run is longer."""
    table = torch.from_numpy(np.load(path)[:, :-1].astype(np.int64))
    start = 0
    while True:
        if start + rows > len(table):
            start = 0
        batch = table[start : start + rows]
        start += rows
        yield batch if device == "cpu" else batch.pin_memory().to(device, non_blocking=True)


def main() -> None:
    path, out, started = sys.argv[1:]
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    if job.get("threads"):
        torch.set_num_threads(job["threads"])
    times = StepTimes(Path(out), job["num_steps"], float(started))
    {"trainer": run_trainer, "loop": run_loop}[job["what"]](job, times)


if __name__ == "__main__":
    main()
