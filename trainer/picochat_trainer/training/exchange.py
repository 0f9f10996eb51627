"""What the ranks tell each other about checkpoints, over gloo: it works beside training, from another thread."""

from typing import Any, TypeVar, cast

import torch.distributed as dist

from picochat_trainer.settings import RankSettings

T = TypeVar("T")


class Exchange:
    """Small values from rank to rank. In a single process each gets back what it gave."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.world_size = 1 if group is None else dist.get_world_size(group)

    @classmethod
    def between_all(cls) -> "Exchange":
        """A group of its own over all ranks, so that no message meets one of the training; all ranks call this.

        It waits as long as the training's own group.
        """
        if not dist.is_initialized():
            return cls()
        return cls(dist.new_group(timeout=RankSettings.from_environment().timeout, backend="gloo"))

    def gather(self, value: T) -> list[T]:
        """What each rank gave, by rank."""
        if self._group is None:
            return [value]
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value, group=self._group)
        return found

    def from_main(self, value: T) -> T:
        """What the main rank gave."""
        if self._group is None:
            return value
        found: list[Any] = [value]
        dist.broadcast_object_list(found, src=0, group=self._group)
        return cast(T, found[0])


ALONE = Exchange()
