"""The driver's real energy counter, on a machine with a CUDA device; what it says elsewhere is in test_metrics.py."""

import time

import pytest
import torch
from picochat_trainer.training.energy import EnergyMeter

SECONDS = 2.0
LEAST_WATTS, MOST_WATTS = 20.0, 2000.0
"""Of one device: idle ones take more than the first, none takes the second."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device: the counter is its driver's"
    ),
]


def work(seconds: float) -> float:
    """Multiply matrices for that long; how long it was in the end."""
    matrix = torch.randn(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()
    return time.perf_counter() - began


def test_work_takes_joules_and_more_work_takes_more() -> None:
    work(0.2)  # the first call loads kernels
    meter = EnergyMeter("cuda:0")
    seconds = work(SECONDS)
    joules, note = meter.joules()
    assert note is None
    assert joules is not None and LEAST_WATTS * seconds < joules < MOST_WATTS * seconds
    work(SECONDS)
    more, _ = meter.joules()
    assert more is not None and more > 1.5 * joules
