"""Copies of tensors on the host, in buffers that are used again, for a writer that works while training goes on."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Tensors as they were when `Staging.copy` was called."""

    buffers: dict[str, Tensor]
    copied: tuple[torch.cuda.Event, ...]

    def tensors(self) -> dict[str, Tensor]:
        """The copies; waits for those that come from a GPU."""
        for event in self.copied:
            event.synchronize()
        return self.buffers


class Staging:
    """Holds one set of copies at a time: they are good until the next `copy`."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def copy(self, tensors: Mapping[str, Tensor]) -> Staged:
        """Copy all. From the CPU it is done on return. A GPU does it in its own time, and before what it is told next."""
        self._buffers = {name: self._buffer(name, tensor) for name, tensor in tensors.items()}
        devices = {tensor.device for tensor in tensors.values()}
        for name, tensor in tensors.items():
            if not tensor.is_cuda:
                self._buffers[name].copy_(tensor.detach())
        copied = tuple(self._copy_from(device, tensors) for device in devices if device.type == "cuda")
        return Staged(buffers=self._buffers, copied=copied)

    def _copy_from(self, device: torch.device, tensors: Mapping[str, Tensor]) -> torch.cuda.Event:
        """Copy on a stream of its own; the training's stream goes on when the copies are made."""
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)
        side = self._streams[device]
        main = torch.cuda.current_stream(device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for name, tensor in tensors.items():
                if tensor.device == device:
                    self._buffers[name].copy_(tensor.detach(), non_blocking=True)
                    tensor.record_stream(side)  # its memory is not given to another before the copy is made
            copied = torch.cuda.Event()
            copied.record(side)
        main.wait_stream(side)
        return copied

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        found = self._buffers.get(name)
        if found is not None and found.shape == tensor.shape and found.dtype == tensor.dtype:
            return found
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
