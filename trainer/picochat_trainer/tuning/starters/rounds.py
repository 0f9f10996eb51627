"""Drawing rows evenly: from each document in turn, no prompt twice."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from picochat_trainer.data.normalize import normal_form

TEXTS_PER_ITEM: Final = 4  # more texts than items are not looked at
T = TypeVar("T")


def in_turns(streams: Sequence[Iterator[T]]) -> Iterator[T]:
    """One of each stream, then the next of each, until all are used up."""
    live = list(streams)
    while live:
        left: list[Iterator[T]] = []
        for stream in live:
            for item in islice(stream, 1):
                yield item
                left.append(stream)
        live = left


def taken(rows: Iterator[T], max_items: int, prompt: Callable[[T], str]) -> list[T]:
    """The first `max_items` rows with different prompts."""
    found: dict[str, T] = {}
    for row in rows:
        found.setdefault(normal_form(prompt(row)), row)
        if len(found) == max_items:
            break
    return list(found.values())
