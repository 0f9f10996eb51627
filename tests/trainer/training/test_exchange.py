"""What ranks tell each other about checkpoints, in a group of one rank."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from picochat_trainer.settings import DDP_TIMEOUT
from picochat_trainer.training import exchange
from picochat_trainer.training.exchange import Exchange


def test_ranks_wait_for_a_checkpoint_as_long_as_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself a group on gloo gives up after 30 minutes, however long the training waits."""
    monkeypatch.setenv(DDP_TIMEOUT, "7")
    asked = []
    new_group = dist.new_group

    def watched(**options: object) -> dist.ProcessGroup | None:
        asked.append(options["timeout"])
        return new_group(**options)  # type: ignore[arg-type]

    monkeypatch.setattr(exchange.dist, "new_group", watched)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        ranks = Exchange.between_all()
        assert ranks.gather("mine") == ["mine"]
        assert ranks.from_main(torch.ones(2)).tolist() == [1, 1]
    finally:
        dist.destroy_process_group()
    assert asked == [timedelta(minutes=7)]


def test_a_process_without_a_group_gets_back_what_it_gave() -> None:
    ranks = Exchange.between_all()
    assert (ranks.world_size, ranks.gather(3), ranks.from_main(3)) == (1, [3], 3)
