"""How long saving a resume checkpoint keeps a training waiting, for a model of 100M parameters on the CPU.

    python bench/checkpoint_blocked.py [--rounds 3] [--folder DIR]

Weights and AdamW state in float32, 12 bytes a parameter; `--folder` chooses the disk. `blocked` is what `Checkpointer.save`
takes; `first` is the first call, which also makes its buffers. `busy` is how much longer a fixed piece of work of the
training's thread (matrix products and many small Python steps) takes while the file is written behind it. `written` is
until the checkpoint is in place, synced, with its digests. The baseline blocks for all of its time: torch.save and fsync of
the same tensors, without digests or swap. About a minute, 4 GB of memory and twice 1.2 GB of disk; figures of a machine that
others use are worth nothing. No GPU: there, copies are made in stream order and nothing waits for them.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from picochat_contract.configs import BaseConfig, ModelConfig
from picochat_contract.manifest import StageJob
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training.checkpoint import TrainingState
from picochat_trainer.training.checkpointer import Checkpointer
from picochat_trainer.training.optim import Optimizers, make_optimizer, optimizer_tensors
from picochat_trainer.training.resume import Training
from picochat_trainer.training.tensor_files import size_of
from picochat_trainer.training.validation import Validation
from step_times import load_line

MODEL = ModelConfig(n_layer=12, n_head=12, n_embd=768, sequence_len=64)
VOCAB = 32_768
WORK = 40  # pieces of the training thread's own work


class _NoBatches:
    position: dict[str, int] = {}

    def seek(self, position: dict[str, int]) -> None: ...

    def shapes(self) -> list[tuple[int, int]]:
        return []

    def next_step(self) -> Any:
        raise AssertionError("saving reads no batch")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="on the disk to be measured; default: the temporary folder's"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        _measure(Path(name), args.rounds)


def _measure(folder: Path, rounds: int) -> None:
    model, optimizer = _trained()
    tensors = {**model.state_dict(), **optimizer_tensors(optimizer, model)}
    size = size_of(tensors)
    print(f"{model.num_parameters():,} parameters, {size / 1e9:.2f} GB; {load_line()}\n", flush=True)
    checkpointer = _checkpointer(folder, model, optimizer)
    quiet = statistics.median(_timed(_work) for _ in range(5))
    blocked, busy, written, plain = [], [], [], []
    for step in range(rounds + 1):
        begin = time.perf_counter()
        checkpointer.save(TrainingState.fresh({}).model_copy(update={"step": step}), {})
        blocked.append(time.perf_counter() - begin)
        busy.append(_timed(_work) / quiet)
        checkpointer.wait()
        written.append(time.perf_counter() - begin)
        plain.append(_timed(lambda: _save_plainly(folder / "plain.pt", tensors)))
    base = statistics.median(plain[1:])
    print(f"{'':<12}{'blocked ms':>12}{'first ms':>10}{'ratio':>8}{'busy':>8}{'written s':>11}{'MB/s':>8}")
    took, done = statistics.median(blocked[1:]), statistics.median(written[1:])
    print(
        f"{'picochat':<12}{1e3 * took:>12.0f}{1e3 * blocked[0]:>10.0f}{took / base:>8.3f}"
        f"{statistics.median(busy[1:]):>7.2f}x{done:>11.2f}{size / 1e6 / done:>8.0f}"
    )
    print(
        f"{'torch.save':<12}{1e3 * base:>12.0f}{1e3 * plain[0]:>10.0f}{1:>8.3f}{'':>8}{base:>11.2f}{size / 1e6 / base:>8.0f}"
    )
    print(f"\n{load_line()} at the end")


def _trained() -> tuple[GPT, Optimizers]:
    model = GPT(MODEL, VOCAB)
    model.init_weights(1)
    optimizer = make_optimizer(model, BaseConfig(learning_rate=1e-4))
    tokens = torch.randint(VOCAB, (1, 17), generator=torch.Generator().manual_seed(1))
    model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def _checkpointer(folder: Path, model: GPT, optimizer: Optimizers) -> Checkpointer:
    training = Training(
        model=model,
        batches=_NoBatches(),
        validator=lambda model: Validation(loss=1.0),
        config=BaseConfig(),
        fingerprint={},
        best="base/best_checkpoint",
        resume="base/resume_checkpoint",
    )
    context = StageContext(folder, StageJob.model_validate({"stage": "base", "config": {}}))
    return Checkpointer(context, training, optimizer, None)


def _work() -> None:
    left = torch.ones(512, 512)
    for _ in range(WORK):
        left = left @ left
        left /= left.sum()
        for _ in range(500):
            left[0, 0].add_(0.0)


def _save_plainly(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with path.open("wb") as file:
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())


def _timed(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
