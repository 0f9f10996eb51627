"""Writes safetensors files in one pass: every byte goes from the tensor to the file and into its sha256.

`safetensors.torch.save_file` would leave the digest to a second reading of the file, and `safetensors.torch.save`, which
torch.distributed.checkpoint uses, holds the interpreter's lock for all of its time (0.8 s of 256 MB, measured), so that a
training that goes on beside it stands still. Here the lock is free while bytes are hashed and written. Reading is left
to the library.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

_CODES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PIECE: Final = 8 << 20  # bytes hashed and written at a time
_ALIGNMENT: Final = 8  # of the first tensor, bytes


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write contiguous CPU tensors, sync the file and return its sha256. The file must not be there yet."""
    names = sorted(
        tensors, key=lambda name: (-tensors[name].element_size(), name)
    )  # which aligns all of them
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in (_header(names, tensors, metadata), *(_bytes_of(tensors[name]) for name in names)):
            for start in range(0, len(piece), _PIECE):
                part = piece[start : start + _PIECE]
                file.write(part)
                digest.update(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def size_of(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the values of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _header(names: list[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> memoryview:
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return memoryview(len(text).to_bytes(8, "little") + text)


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().data
