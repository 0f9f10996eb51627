"""Stages of commands begin with their imports done, but where a test is to start them as a user does."""

from collections.abc import Iterator

import pytest
from picochat_trainer import launch
from support import forks

START_STAGE = launch.start_stage


@pytest.fixture(autouse=True, scope="module")
def forked_stages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "start_stage", forks.start_stage)
        yield


@pytest.fixture
def stage_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage is a program."""
    monkeypatch.setattr(launch, "start_stage", START_STAGE)
