"""One thread that writes what training hands it, in order, while training goes on."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Writer(Generic[T]):
    """Runs pieces of work one after another; what they return or raise comes out where `done` or `wait` is called."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._pending: list[tuple[str, Future[T]]] = []

    def submit(self, kind: str, work: Callable[[], T]) -> None:
        self._pending.append((kind, self._thread.submit(work)))

    def done(self) -> Iterator[T]:
        """What has been finished since, oldest first; waits for nothing."""
        while self._pending and self._pending[0][1].done():
            yield self._pending.pop(0)[1].result()

    def wait(self, kind: str | None = None) -> Iterator[T]:
        """All results up to the newest work of `kind`, or of any kind."""
        while any(kind in (None, other) for other, _ in self._pending):
            yield self._pending.pop(0)[1].result()
