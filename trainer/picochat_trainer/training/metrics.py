"""What a training took: seconds by what they were spent on, tokens, operations, memory, energy.

Operations are PaLM's count (arXiv 2204.02311, appendix B) at the width of each batch: 6 per matrix weight and token,
and attention's matmuls over the whole width, not halved for the causal mask nor less for a document mask.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.energy import EnergyMeter
from picochat_trainer.training.machine import matmul_rate, memory_peak, peak_flops

FLOPS_CONVENTION: Final = "6 per matrix weight and token, attention over the whole width (PaLM, appendix B)"


@dataclass
class Clock:
    """Seconds spent, by what they were spent on, in this process."""

    train: float = 0.0
    """Steps, with the wait for data."""
    data_wait: float = 0.0
    compile: float = 0.0
    validate: float = 0.0
    checkpoint: float = 0.0
    """In which the loop waited for a checkpoint; writing behind it is not counted."""
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)

    @property
    def elapsed(self) -> float:
        """Since this object was made."""
        return time.perf_counter() - self.started


class Meter:
    """Counts the work of all ranks while this process trains, and what it took."""

    def __init__(self, model: GPT, device: str, dtype: torch.dtype | None, num_ranks: int) -> None:
        self.clock = Clock()
        self.compiled = False
        self._device = device
        self._dtype = dtype
        self._num_ranks = num_ranks
        self._config = model.config
        self._flops_per_token = model.flops_per_token()
        self._tokens = 0
        self._flops = 0.0
        self._first_step_seconds: float | None = None
        self._logged_tokens = 0
        self._logged_seconds = 0.0
        self._energy = EnergyMeter(device)

    def count(self, shapes: Sequence[tuple[int, int]]) -> int:
        """Add a step with the micro-batches (B, T) of all ranks; returns its tokens."""
        config = self._config
        tokens = 0
        for rows, width in shapes:
            missing = config.sequence_len - width
            attention = 12 * config.n_layer * config.n_head * config.head_dim * missing
            tokens += rows * width
            self._flops += rows * width * (self._flops_per_token - attention)
        self._tokens += tokens
        if self._first_step_seconds is None:
            self._first_step_seconds = process_age()
        return tokens

    def interval_speed(self) -> float:
        """Tokens per second of steps since the last call."""
        tokens, seconds = self._tokens - self._logged_tokens, self.clock.train - self._logged_seconds
        self._logged_tokens, self._logged_seconds = self._tokens, self.clock.train
        return tokens / max(seconds, 1e-9)

    def report(self) -> dict[str, Any]:
        """`throughput` of a report; all of this process, so of a resumed training only its last part. Collective."""
        clock, worked = self.clock, self.clock.train > 0 and self._tokens > 0
        with_pauses = clock.train + clock.validate + clock.checkpoint
        energy, energy_note = self._joules()
        return {
            "tokens": self._tokens,
            "tokens_per_second": self._tokens / clock.train if worked else None,
            "tokens_per_second_with_pauses": self._tokens / with_pauses if worked else None,
            "gflops_per_second": self._flops / clock.train / 1e9 if worked else None,
            **(self._utilisation() if worked else {"mfu": None, "peak": None}),
            "flops_per_token": self._flops_per_token,
            "flops_convention": FLOPS_CONVENTION,
            "first_step_seconds": self._first_step_seconds,
            "train_seconds": clock.train,
            "data_wait_share": clock.data_wait / clock.train if worked else None,
            "compile_seconds": clock.compile,
            "validate_seconds": clock.validate,
            "checkpoint_seconds": clock.checkpoint,
            "memory_peak_bytes": memory_peak(self._device),
            "energy_joules": energy,
            "energy_note": energy_note,
            "compiled": self.compiled,
            "precision": "bf16" if self._dtype is torch.bfloat16 else "float32",
            "num_ranks": self._num_ranks,
        }

    def _joules(self) -> tuple[float | None, str | None]:
        """Of all ranks together; all of them call this."""
        own, note = self._energy.joules()
        total, missing = distributed.sum_over_ranks([own or 0.0, float(own is None)])
        return (None, note or "another rank has no energy counter") if missing else (total, None)

    def _utilisation(self) -> dict[str, Any]:
        listed = peak_flops(self._device, self._dtype)
        peak = listed or matmul_rate(self._device, self._dtype)
        source = (
            "data sheet of the device"
            if listed
            else "fastest of five matmuls of 1024 x 1024 in the same number format, measured in this process after training"
        )
        rate = self._flops / self.clock.train / self._num_ranks
        return {"mfu": rate / peak, "peak": {"flops_per_second": peak, "of": "one rank", "source": source}}


def process_age(proc: Path = Path("/proc")) -> float | None:
    """Seconds since this process began; None where the system does not say it as Linux does."""
    try:
        # The name in the second field may hold spaces and brackets: count from behind it.
        started = int((proc / "self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float((proc / "uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
