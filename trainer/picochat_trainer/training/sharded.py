"""Checkpoints of weights that are shared out over ranks: each rank writes its parts, any number of ranks reads them.

A rank's file holds its part of every tensor, and in its header where in the whole tensor the part begins, as
`torch.distributed.checkpoint`'s HuggingFaceStorageWriter notes it: that library's planner reads the files back, for
whatever placement is asked for. It does not write them, and its default format is a pickle: see
docs/decisions/0008-sharded-checkpoints-are-safetensors.md.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import torch
from picochat_contract.errors import Code, ContractError
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor import empty as empty_dtensor

from picochat_trainer.training.tensor_files import write_tensors

SHARDS: Final = "shards"
"""Folder of the shards in a checkpoint."""
_SHARDING_KEY: Final = "DCP_SHARDING_INFO"
_VERSION: Final = {"DCP_VERSION": "1.0", "format": "pt"}

Placement = Callable[[str, torch.Size], DTensor | None]
"""By name and whole shape of a saved tensor: the tensor that it shall lie like, or None for a plain one on the CPU."""


def nowhere(name: str, shape: torch.Size) -> DTensor | None:
    """Every tensor is whole and on the CPU."""
    return None


def placement_of(model: nn.Module) -> Placement:
    """Weights, optimizer state and means lie as the parameter in their name does: `exp_avg.<parameter>`."""
    parameters = {name: p for name, p in model.named_parameters() if isinstance(p, DTensor)}

    def find(name: str, shape: torch.Size) -> DTensor | None:
        parts = name.split(".")
        candidates = (parameters.get(".".join(parts[start:])) for start in range(len(parts)))
        return next((p for p in candidates if p is not None and p.shape == shape), None)

    return find


def split_parts(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, list[int]], dict[str, Tensor]]:
    """This rank's parts of the shared tensors, where each begins in the whole, and the tensors that are not shared."""
    parts: dict[str, Tensor] = {}
    offsets: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            [chunk] = tensor.__create_chunk_list__()  # the protocol of torch.distributed.checkpoint
            local = tensor.to_local().detach()
            if local.numel():  # ranks may be more than rows
                parts[name], offsets[name] = local, list(chunk.offsets)
    return parts, offsets, {name: t for name, t in tensors.items() if not isinstance(t, DTensor)}


def write_shard(
    folder: Path, parts: Mapping[str, Tensor], offsets: Mapping[str, list[int]], rank: int, world_size: int
) -> tuple[str, str]:
    """Write a rank's parts into the checkpoint `folder`; return the file's name in it and its sha256."""
    name = f"{SHARDS}/shard-{rank:05d}-of-{world_size:05d}.safetensors"
    (folder / SHARDS).mkdir(exist_ok=True)
    sharding = {key: {"saved_offsets": offsets[key]} for key in parts}
    return name, write_tensors(folder / name, parts, {**_VERSION, _SHARDING_KEY: json.dumps(sharding)})


def read_shards(folder: Path, placement: Placement) -> dict[str, Tensor]:
    """Read all tensors of the shards in `folder`, of which this rank needs perhaps only parts."""
    reader = HuggingFaceStorageReader(str(folder))
    found = reader.read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {
        name: _empty(saved, placement(name, saved.size))
        for name, saved in found.items()
        if isinstance(saved, TensorStorageMetadata)
    }
    try:
        with warnings.catch_warnings():
            # Each rank plans and reads for itself, which is said to be for single processes.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
            load(tensors, storage_reader=reader, no_dist=True)
    except CheckpointException as error:
        raise ContractError(
            Code.CHECKPOINT_CORRUPT, f"the shards in {folder} cannot be read: {error}", param=str(folder)
        ) from error
    return tensors


def read_whole(path: Path, placement: Placement) -> dict[str, Tensor]:
    """Read a file of whole tensors; of a shared one only this rank's part is kept."""
    with safe_open(path, framework="pt") as file:
        names = file.keys()
        return {name: _placed(file.get_tensor(name), placement, name) for name in names}


def _placed(tensor: Tensor, placement: Placement, name: str) -> Tensor:
    like = placement(name, tensor.shape)
    if like is None:
        return tensor
    # Every rank has the whole tensor in hand, so none sends anything.
    on_device = tensor.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)


def _empty(saved: TensorStorageMetadata, like: DTensor | None) -> Tensor:
    dtype = saved.properties.dtype
    if like is None:
        return torch.empty(saved.size, dtype=dtype)
    return empty_dtensor(saved.size, dtype=dtype, device_mesh=like.device_mesh, placements=like.placements)
