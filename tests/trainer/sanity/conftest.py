"""A setup on the CPU in float32, as quick as the checks go."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from picochat_trainer.sanity.setup import Setup


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(
        device="cpu",
        precision="float32",
        dtype=None,
        attn_backend="auto",
        include_compile=False,
        preset=None,
        capacity_batch_size=None,
        min_free_fraction=0.1,
        folder=tmp_path,
        num_gpus=0,
    )


@pytest.fixture
def changed(setup: Setup) -> Callable[..., Setup]:
    def change(**values: Any) -> Setup:
        return replace(setup, **values)

    return change
