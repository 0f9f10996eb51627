"""Runs a function over many items in several processes and gives the results in the order of the items.

Small inputs never start a process: until POOL_AFTER_BYTES of work have come, everything is done in the calling one.
Processes are spawned, not forked (pyarrow and numpy own threads), and end with their parent, also where it is killed.
"""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from types import TracebackType
from typing import Final, Self, TypeVar

Item = TypeVar("Item")
Task = TypeVar("Task")
Result = TypeVar("Result")

POOL_AFTER_BYTES: Final = 16 << 20
"""About half a second of cleaning, which is what starting the processes takes."""
AHEAD: Final = 2
"""Tasks per process that wait or run."""


class Workers:
    """Up to `count` processes, started when the work proves large; use as a context manager."""

    def __init__(
        self,
        count: int,
        *,
        pool_after_bytes: int = POOL_AFTER_BYTES,
        start_pool: Callable[[], Executor] | None = None,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        """`start_pool` makes what runs the tasks, where that is not processes of this machine.

        `initializer` runs once in each new process; it carries what all tasks need and no task should.
        """
        self._count = max(1, count)
        self._inline_bytes = pool_after_bytes if start_pool or count > 1 else math.inf
        self._start_pool = start_pool or self._processes
        self._initializer = initializer
        self._pool: Executor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self,
        function: Callable[[Task], Result],
        items: Iterable[Item],
        *,
        task: Callable[[Item], Task],
        size_bytes: Callable[[Item], int],
    ) -> Iterator[tuple[Item, Result]]:
        """Each item with `function(task(item))`, in order; only the task travels to another process."""
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                if self._inline_bytes > 0:
                    self._inline_bytes -= size_bytes(item)
                    yield item, function(task(item))
                    continue
                waiting.append((item, self._started().submit(function, task(item))))
                if len(waiting) > AHEAD * self._count:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()

    def _started(self) -> Executor:
        if self._pool is None:
            self._pool = self._start_pool()
        return self._pool

    def _processes(self) -> Executor:
        return ProcessPoolExecutor(
            self._count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_process,
            initargs=(self._initializer,),
        )


def _start_process(initializer: Callable[[], None] | None) -> None:
    _follow_parent()
    if initializer is not None:
        initializer()


def _follow_parent() -> None:
    """A stop is the parent's to handle; its end is the end of this process too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
