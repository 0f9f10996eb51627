"""The model that a training begins with, filled one parameter at a time.

It is built on no device, shared out over the ranks where that is asked for, and filled then: the main rank draws or reads
each parameter in turn and sends it to all, and each keeps its part. So a rank never holds more than what it trains with
and one parameter beside it, and all ranks begin with the bits that a single process begins with.
"""

from collections.abc import Callable, Iterator
from itertools import repeat

import torch
import torch.distributed as dist
from picochat_contract import layout
from picochat_contract.configs import DistributedStrategy, ModelConfig
from picochat_contract.errors import Code, ContractError
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.checkpoint import Opened

WeightSource = Callable[[GPT], Iterator[Tensor]]
"""The whole weights of a model in the order of its parameters, on the CPU. Each is made when it is asked for."""


def build_model(
    config: ModelConfig,
    vocab_size: int,
    source: WeightSource,
    *,
    device: str,
    strategy: DistributedStrategy = "ddp",
    dtype: torch.dtype | None = None,
) -> GPT:
    """A model on `device` with the weights of `source`, which only the main rank asks; all ranks call this.

    With fsdp it is sharded, and `dtype` is the one that `distributed.shard` takes. Raises RuntimeError where ranks did not
    get the same weights.
    """
    with torch.device("meta"):
        model = GPT(config, vocab_size)
    distributed.shard(model, device, strategy, dtype=dtype)
    distributed.materialize(model, device)
    _fill(model, source)
    return model


def drawn(seed: int) -> WeightSource:
    """New weights."""
    return lambda model: model.initial_weights(seed)


def saved(checkpoint: Opened) -> WeightSource:
    """The weights of a checkpoint with whole tensors, whose digests have been checked."""

    def read(model: GPT) -> Iterator[Tensor]:
        path = checkpoint.directory / layout.WEIGHTS
        wanted = {name: parameter.shape for name, parameter in model.named_parameters()}
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            found = {name: torch.Size(file.get_slice(name).get_shape()) for name in names}
            if found != wanted:
                differing = ", ".join(sorted({name for name, _ in found.items() ^ wanted.items()}))
                raise ContractError(
                    Code.CHECKPOINT_CORRUPT,
                    f"{path} does not hold the weights of the model that its config describes; they differ in {differing}. "
                    "Restore the folder from a copy, or train again",
                    param=str(path),
                )
            for name in wanted:
                yield file.get_tensor(name)

    return read


@torch.no_grad()
def _fill(model: GPT, source: WeightSource) -> None:
    if not dist.is_initialized():
        values = source(model)
        for parameter in model.parameters():
            parameter.copy_(next(values))
        return
    sent: Iterator[Tensor | None] = source(model) if dist.get_rank() == 0 else repeat(None)
    digests = {name: _fill_from_main(parameter, next(sent)) for name, parameter in model.named_parameters()}
    distributed.refuse_unequal(digests)


def _fill_from_main(parameter: nn.Parameter, value: Tensor | None) -> Tensor:
    """Take this rank's part of the value that the main rank has; return the digest of the whole, 0-d."""
    if value is None:
        whole = torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device)
    else:
        whole = value.to(parameter.device, parameter.dtype)
    dist.broadcast(whole, 0)
    part = whole
    if isinstance(parameter, DTensor):
        # Every rank has the whole of it in hand, so none sends anything.
        part = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(part)
    return torch.hash_tensor(whole)
