"""Micro-batches on the device: read inline on the CPU, by a thread at most two steps ahead on CUDA.

On the CPU the thread would take a core from the step for work that is far under 1 % of it (see `data_wait_share` in a
report). On CUDA the thread reads the memory maps, copies to pinned memory and starts the transfer on a stream of its
own; the step waits for that stream on the device, never on the host.

B rows, T tokens
"""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, Protocol

import torch
from torch import Tensor

from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.training.reader import BatchSource, StepBatch

STEPS_AHEAD: Final = 2


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """What one forward and backward pass takes."""

    tokens: Tensor
    """(B, T), int64, on the device; so are the targets."""
    targets: Tensor
    share: float
    """Its targets over all targets of the global step."""


@dataclass(frozen=True, kw_only=True)
class DeviceStep:
    """What one rank computes in one optimizer step, with all that the host must know of it."""

    micro_batches: tuple[MicroBatch, ...]
    shapes: list[tuple[int, int]]
    """(B, T) of the micro-batches of all ranks."""
    position: dict[str, int]
    """Of the reader behind this step: where a resumed training goes on."""
    ready: torch.cuda.Event | None = None
    """When the transfer is done; None where there is none."""


class Feed(Protocol):
    """Steps on the device, one after another."""

    def next_step(self) -> DeviceStep: ...
    @property
    def position(self) -> dict[str, int]:
        """Behind the last step that was given out, whatever has been read since."""
        ...

    def close(self) -> None:
        """Nothing is read any more."""
        ...


class InlineFeed:
    """Reads a step when it is asked for."""

    def __init__(self, source: BatchSource) -> None:
        self._source = source

    @property
    def position(self) -> dict[str, int]:
        return self._source.position

    def next_step(self) -> DeviceStep:
        return _read(self._source)

    def close(self) -> None:
        pass


class PrefetchFeed:
    """Reads ahead in a thread. What the reader raises comes out of `next_step`, at the step that it was raised for."""

    def __init__(self, source: BatchSource, device: str, steps_ahead: int = STEPS_AHEAD) -> None:
        self._source = source
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._position = source.position
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._steps: deque[Future[DeviceStep]] = deque()
        for _ in range(steps_ahead):
            self._read_one_more()

    @property
    def position(self) -> dict[str, int]:
        return self._position

    def next_step(self) -> DeviceStep:
        step = self._steps.popleft().result()
        self._read_one_more()
        if step.ready is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(step.ready)
            for micro in step.micro_batches:  # else the allocator could give their memory away too early
                micro.tokens.record_stream(stream)
                micro.targets.record_stream(stream)
        self._position = step.position
        return step

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._steps.clear()

    def _read_one_more(self) -> None:
        self._steps.append(self._thread.submit(self._prepare))

    def _prepare(self) -> DeviceStep:
        step = _read(self._source)
        return step if self._stream is None else _transferred(step, self._device, self._stream)


def open_feed(source: BatchSource, device: str) -> Feed:
    """The feed that is fastest on `device`; the source must be at the position to go on from."""
    return InlineFeed(source) if device == "cpu" else PrefetchFeed(source, device)


def _read(source: BatchSource) -> DeviceStep:
    batch: StepBatch = source.next_step()
    micro_batches = tuple(
        MicroBatch(
            tokens=tokens_BT,
            targets=targets_BT,
            share=int((targets_BT != IGNORE_INDEX).sum()) / batch.num_targets,
        )
        for tokens_BT, targets_BT in batch.micro_batches
    )
    return DeviceStep(micro_batches=micro_batches, shapes=batch.shapes, position=source.position)


def _transferred(step: DeviceStep, device: torch.device, stream: torch.cuda.Stream) -> DeviceStep:
    with torch.cuda.device(device), torch.cuda.stream(stream):
        moved = tuple(
            MicroBatch(
                tokens=micro.tokens.pin_memory().to(device, non_blocking=True),
                targets=micro.targets.pin_memory().to(device, non_blocking=True),
                share=micro.share,
            )
            for micro in step.micro_batches
        )
        return replace(step, micro_batches=moved, ready=stream.record_event())
