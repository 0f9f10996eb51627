"""The same shape and rows in litgpt's own pretraining, `litgpt.pretrain.setup`, under StepTimes.

    PEER_PYTHON bench/peer_litgpt.py JOB_JSON STEPS_JSON STARTED     (started by bench/train_cpu.py)

Runs in an environment of its own: litgpt and a CPU build of torch, nothing of picochat. What is set: the model's shape
(Qwen3's block), batch, tokens, AdamW's numbers, tied embeddings, csv logs every 5 steps, no checkpoints. What stays litgpt's:
torch.compile of the whole model, precision bf16-mixed, its chunked loss, gradient clipping, initial weights. Its first step
comes after two batches of validation, which it always runs.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule
from litgpt.pretrain import setup
from step_times import StepTimes
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader


class RowsModule(DataModule):
    """Rows of T + 1 ids from an .npy file, in their order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._rows = torch.from_numpy(np.load(path).astype(np.int64))
        self._batch_size = 1

    def connect(
        self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None, **_: Any
    ) -> None:
        self._batch_size = batch_size

    def train_dataloader(self) -> "DataLoader[Any]":
        return DataLoader(self._rows, batch_size=self._batch_size, drop_last=True)

    def val_dataloader(self) -> "DataLoader[Any]":
        return DataLoader(self._rows[: 2 * self._batch_size], batch_size=self._batch_size)


def main() -> None:
    path, out, started = sys.argv[1:]
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    times = StepTimes(Path(out), job["num_steps"], float(started))
    register_optimizer_step_post_hook(times.stamp)
    model, length = job["model"], job["model"]["sequence_len"]
    config = Config(
        name="bench",
        block_size=length,
        n_layer=model["n_layer"],
        n_embd=model["n_embd"],
        n_head=model["n_head"],
        n_query_groups=model["n_kv_head"],
        head_size=model["n_embd"] // model["n_head"],
        vocab_size=job["vocab_size"],
        padded_vocab_size=job["vocab_size"],
        norm_class_name="RMSNorm",
        norm_eps=1e-6,
        norm_qk=True,
        parallel_residual=False,
        rotary_percentage=1.0,
        bias=False,
        mlp_class_name="LLaMAMLP",
        intermediate_size=job["hidden"],
    )
    setup(
        model_name="bench",
        model_config=config,
        out_dir=Path(job["folder"]),
        data=RowsModule(Path(job["rows_file"])),
        train=TrainArgs(
            save_interval=None,
            log_interval=5,
            global_batch_size=job["rows"],
            micro_batch_size=job["rows"],
            max_tokens=(job["num_steps"] + 1) * job["rows"] * length,
            max_norm=1.0,
            min_lr=1e-4,
            lr_warmup_steps=10,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=1_000_000, max_iters=2, final_validation=False),
        optimizer={
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": 1e-3, "betas": [0.9, 0.95], "weight_decay": 0.1},
        },
        devices=1,
        logger_name="csv",
    )


if __name__ == "__main__":
    main()
