"""ModelHost: which model processes live. At most `max_live`; idle ones are stopped, the oldest makes room.

The server itself holds no model. Bookkeeping has no `await` between a check and the change that rests on it,
so it needs no lock; it belongs to one event loop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from picochat_contract import layout

from picochat_server.inference.files import ModelFiles, ModelFilesError, lay_out
from picochat_server.inference.process import ModelHostError, ModelProcess, start

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 5
READ_SECONDS = 600  # one token, or one whole answer where it is not streamed


@dataclass(kw_only=True)
class _Slot:
    """A model that lives or is being started, and how many requests rest on it."""

    files: ModelFiles
    task: asyncio.Task[ModelProcess]
    num_requests: int
    last_used: float

    @property
    def is_dead(self) -> bool:
        if not self.task.done():
            return False
        return self.task.cancelled() or bool(self.task.exception()) or not self.task.result().is_alive


class Lease:
    """One request's hold on a model process: it is not stopped before `release()`."""

    def __init__(self, slot: _Slot, process: ModelProcess, clock: Callable[[], float]) -> None:
        self.slot, self._clock, self._held = slot, clock, True
        self.process = process

    def release(self) -> None:
        if self._held:
            self._held = False
            self.slot.num_requests -= 1
            self.slot.last_used = self._clock()


class ModelHost:
    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        stored: Callable[[str], Path],
        idle_seconds: float,
        start_seconds: float = 120,
        max_live: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._folder = folder.resolve()
        self._stored = stored
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._max_live = max_live
        self._clock = clock
        self._slots: dict[str, _Slot] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._is_closed = False
        # trust_env off: a proxy of the environment has no business between the server and its own child.
        self.client = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS), trust_env=False
        )

    @property
    def live(self) -> tuple[str, ...]:
        """Names of the models whose processes run."""
        return tuple(slot.files.name for slot in self._slots.values() if not slot.is_dead)

    def serves(self, files: ModelFiles) -> bool:
        """True if a process for exactly these files lives or is being started."""
        slot = self._slots.get(files.key)
        return slot is not None and not slot.is_dead

    async def acquire(self, files: ModelFiles) -> Lease:
        """A live process for this model, started if there is none; raise ModelHostError."""
        slot = self._slots.get(files.key)
        if slot is None or slot.is_dead:
            slot = self._new_slot(files)
        slot.num_requests += 1
        try:
            # Shielded: one caller who goes away does not stop the start that others wait for.
            process = await asyncio.shield(slot.task)
        except BaseException as error:
            slot.num_requests -= 1
            slot.last_used = self._clock()
            if isinstance(error, ModelFilesError | OSError):
                raise ModelHostError(f"the model's files could not be laid out: {error}") from error
            raise
        return Lease(slot, process, self._clock)

    def discard(self, lease: Lease) -> None:
        """Forget a process that broke off, so that the next request starts another at once."""
        key = lease.slot.files.key
        if self._slots.get(key) is lease.slot:
            del self._slots[key]
            task = asyncio.create_task(_retire(lease.slot))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Stop every process; nothing is started after this."""
        self._is_closed = True
        slots, self._slots = list(self._slots.values()), {}
        if self._reaper is not None:
            self._reaper.cancel()
        await asyncio.gather(*self._retiring, *(_retire(slot, cancel=True) for slot in slots))
        await self.client.aclose()

    def _new_slot(self, files: ModelFiles) -> _Slot:
        if self._is_closed:
            raise ModelHostError("the server is shutting down")
        victim = self._make_room(files.key)
        if self._reaper is None:
            self._reaper = asyncio.create_task(self._stop_idle())
        task = asyncio.create_task(self._start(files, victim))
        task.add_done_callback(_retrieve)
        slot = _Slot(files=files, task=task, num_requests=0, last_used=self._clock())
        self._slots[files.key] = slot
        return slot

    def _make_room(self, key: str) -> _Slot | None:
        """Take the least recently used idle model out; raise if all are answering."""
        self._slots = {k: slot for k, slot in self._slots.items() if k != key and not slot.is_dead}
        if len(self._slots) < self._max_live:
            return None
        idle = [(slot.last_used, k) for k, slot in self._slots.items() if slot.num_requests == 0]
        if not idle:
            raise ModelHostError(
                f"{len(self._slots)} models are answering requests, which is this server's limit; try again soon"
            )
        return self._slots.pop(min(idle)[1])

    async def _start(self, files: ModelFiles, victim: _Slot | None) -> ModelProcess:
        if victim is not None:
            await _retire(victim)
        folder = self._folder / files.folder
        await asyncio.to_thread(lay_out, files, folder, self._stored)
        logger.info("starting model process", extra={"model": files.name, "checkpoint": files.weights})
        return await start(
            self._command,
            checkpoint=folder,
            tokenizer=folder / layout.TOKENIZER,
            name=files.name,
            log=self._folder / f"{files.key}.log",
            client=self.client,
            deadline_seconds=self._start_seconds,
        )

    async def _stop_idle(self) -> None:
        while True:
            await asyncio.sleep(min(5.0, self._idle_seconds / 4))
            now = self._clock()
            for key, slot in list(self._slots.items()):
                idle = slot.num_requests == 0 and now - slot.last_used > self._idle_seconds
                if slot.is_dead or (idle and slot.task.done()):
                    del self._slots[key]
                    await _retire(slot)


async def _retire(slot: _Slot, *, cancel: bool = False) -> None:
    if cancel:
        slot.task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ModelHostError, ModelFilesError, OSError):
        process = await asyncio.shield(slot.task)
        await process.stop()


def _retrieve(task: asyncio.Task[ModelProcess]) -> None:
    """Mark a failed start as seen: those who waited have it, and nobody may have waited to the end."""
    if not task.cancelled():
        task.exception()
