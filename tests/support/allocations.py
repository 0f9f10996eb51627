"""How much memory of tensors there is at a time: what no rank may have must be seen to be counted."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Inside, `most` is the most bytes that were alive at a time, of memory that operations gave or looked at.

    What the arguments of the first operation lie in counts too, so let nothing large live that is not meant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive = 0
        self._seen: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((found, args, kwargs)):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return found

    def _see(self, tensor: Tensor) -> None:
        if hasattr(tensor, "to_local"):
            tensor = tensor.to_local()
        storage = tensor.untyped_storage()
        key = id(storage)
        if storage.device.type == "meta" or key in self._seen:
            return
        size = storage.nbytes()
        self._seen[key] = weakref.ref(storage, lambda _: self._free(key, size))
        self._alive += size
        self.most = max(self.most, self._alive)

    def _free(self, key: int, size: int) -> None:
        del self._seen[key]
        self._alive -= size
