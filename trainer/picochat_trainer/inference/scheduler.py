"""One thread that generates for all requests of the server: iteration-level batching over a bounded queue.

A request joins the running batch as soon as a slot is free, between two tokens of the others (Orca, OSDI 2022), so
a short answer never waits for a long one to end. First come, first served; what does not fit is refused.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from picochat_trainer.inference.batch import Batch, Generation, StreamPiece
from picochat_trainer.inference.engine import Engine

logger = logging.getLogger(__name__)

Deliver = Callable[[Generation, StreamPiece | Exception], None]


class QueueFullError(Exception):
    """The queue is full; the caller should try again later."""


class Scheduler:
    """`submit` may be called from any thread; `deliver` is called from the generation thread."""

    def __init__(self, engine: Engine, *, num_slots: int, max_waiting: int) -> None:
        self._engine = engine
        self._num_slots = num_slots
        self._max_waiting = max_waiting
        self._waiting: deque[Generation] = deque()
        self._deliver: dict[Generation, Deliver] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="picochat-generation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the current token; answers in the making are not delivered."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, generations: Sequence[Generation], deliver: Deliver) -> None:
        """Queue all of them or raise QueueFullError. `deliver` gets every piece, or one exception per generation."""
        with self._changed:
            self._forget([generation for generation in self._waiting if generation.cancelled])
            if len(self._waiting) + len(generations) > self._max_waiting:
                raise QueueFullError
            self._waiting.extend(generations)
            self._deliver.update(dict.fromkeys(generations, deliver))
            self._changed.notify()

    @property
    def num_waiting(self) -> int:
        with self._changed:
            return len(self._waiting)

    @property
    def num_unfinished(self) -> int:
        """Generations that wait or run."""
        with self._changed:
            return len(self._deliver)

    def _run(self) -> None:
        batch = Batch(self._engine.model, self._num_slots)
        while self._admit(batch):
            try:
                pieces = batch.step()
            except Exception as error:  # the edge of the thread: it must outlive a request that fails
                logger.exception("generation failed")
                self._fail_admitted(error)
                batch = Batch(self._engine.model, self._num_slots)
                continue
            for generation, piece in pieces:
                self._deliver[generation](generation, piece)
            with self._changed:
                # Also those that were cancelled, of which no last piece comes.
                self._forget([generation for generation in self._deliver if generation.ended])

    def _admit(self, batch: Batch) -> bool:
        """Wait until there is something to do and fill free slots; False means stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting or batch.busy)
            while self._waiting and batch.num_free:
                batch.admit(self._waiting.popleft())
            return not self._stopping

    def _fail_admitted(self, error: Exception) -> None:
        with self._changed:
            failed = [generation for generation in self._deliver if generation not in self._waiting]
        for generation in failed:
            self._deliver[generation](generation, error)
        with self._changed:
            self._forget(failed)

    def _forget(self, generations: Sequence[Generation]) -> None:
        for generation in generations:
            self._deliver.pop(generation, None)
            if generation in self._waiting:
                self._waiting.remove(generation)
