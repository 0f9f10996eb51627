"""How a training is spread over ranks, and the few collectives it needs. All are the identity in a single process.

ddp   every rank has the whole model; gradients are averaged while the backward pass runs
fsdp  FSDP2: weights, gradients and optimizer state lie in shards; a block's weights are gathered while it works

Under FSDP the weights are whole only inside a call of `Root`. The methods of the model that the loop and the
validators call go through it by themselves, and all ranks must call them equally often.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from picochat_contract.configs import DistributedStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from picochat_trainer.model import GPT

TIMEOUT = timedelta(minutes=120)
_THROUGH_ROOT = ("forward", "hidden", "logits", "loss", "token_losses")
_ROOT = "_shard_root"  # where a sharded model keeps its Root; not a registered child, which would be a cycle

T = TypeVar("T")


def start(device: str, world_size: int, timeout: timedelta = TIMEOUT) -> None:
    """Join the process group that torchrun described in the environment."""
    if world_size > 1:
        if device != "cpu":
            torch.cuda.set_device(device)
        # What ranks tell each other goes over gloo also on GPUs: it must not wait for the device.
        dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=timeout)


def finish() -> None:
    """Leave together after the last collective; the main rank may go on alone."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def exit_process(code: int) -> None:
    """End at once: gloo's threads abort the interpreter's normal exit about one time in ten (measured)."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def shard(
    model: GPT, device: str, strategy: DistributedStrategy, *, dtype: torch.dtype | None = None
) -> None:
    """Share the parameters of `model` out over the ranks, in place, before the optimizer is made; nothing for ddp.

    Each rank keeps its part of what it has; the model may be on the meta device. Shards are float32 and gradients are
    summed in float32. With a `dtype` the weights of the blocks are gathered in it, which halves what is sent; autocast
    would cast them to it anyway (of a norm's weight it would not).
    """
    if strategy != "fsdp" or not dist.is_initialized():
        return
    mesh = init_device_mesh(torch.device(device).type, (dist.get_world_size(),))
    policy = MixedPrecisionPolicy(
        param_dtype=dtype,
        reduce_dtype=torch.float32 if dtype is not None else None,
        cast_forward_inputs=False,
    )
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    root = Root(model)
    # Embedding and head are needed again as soon as the backward pass begins.
    fully_shard(root, mesh=mesh, reshard_after_forward=False)
    object.__setattr__(model, _ROOT, root)
    for name in _THROUGH_ROOT:
        setattr(model, name, partial(root.run, getattr(model, name)))


@torch.no_grad()
def materialize(model: GPT, device: str) -> None:
    """Give the parameters of a model on the meta device memory on `device`, shards where it is sharded, without values.

    Buffers have values from the beginning and keep them.
    """
    buffers = dict(model.named_buffers())
    outermost: nn.Module = getattr(model, _ROOT, model)  # which must hear of parameters that change places
    outermost.to_empty(device=device)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])


class Root(nn.Module):
    """What FSDP takes for the outermost module: inside its calls the weights outside the blocks are whole.

    The model itself cannot be that module: its methods call each other, and FSDP gathers per outermost call.
    """

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model
        self.is_open = False

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        self.is_open = True
        try:
            return function(*args)
        finally:
            self.is_open = False

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function` with whole weights."""
        if self.is_open:
            return function(*args)
        result = self(function, *args)
        if not torch.is_grad_enabled() and isinstance(self, FSDPModule):
            self.reshard()  # else done by the backward pass
        return result


def with_whole_block(model: GPT, function: Callable[[], T]) -> T:
    """Call `function` with the weights of the first block, and those outside of blocks, whole also where they are sharded.

    Ranks meet before `function` runs and not within, so that none waits for one that takes long or has failed in it.
    """
    root: Root | None = getattr(model, _ROOT, None)
    block = model.model.layers[0]
    if root is None or not isinstance(block, FSDPModule):
        return function()

    def inside() -> T:
        block.unshard()
        try:
            with torch.enable_grad():
                return function()
        finally:
            block.reshard()

    with torch.no_grad():  # else FSDP would wait for a backward pass of its own
        return cast(T, root.run(inside))


class Sharded(nn.Module):
    """A module over a sharded model, to be called for the loss."""

    def __init__(self, module: nn.Module, root: Root) -> None:
        super().__init__()
        self.module = module
        self.root = root

    def forward(self, *args: Any) -> Any:
        return self.root.run(self.module, *args)


class Replicated(nn.parallel.DistributedDataParallel):
    """DDP over a loss whose every step talks alike, whether it accumulates or not.

    DDP records a static graph in its first pass, and counts wrongly ever after if that one is inside `no_sync` (torch
    2.13: gradients then stay what each rank has). So the first batch is computed once more beforehand, for that alone;
    without accumulation the pass would do no harm in a step, but a resumed training would add up in another order.
    """

    knows_graph = False

    def forward(self, *args: Any) -> Any:
        if not self.knows_graph and torch.is_grad_enabled():
            self._record(*args)
        return super().forward(*args)

    def _record(self, *args: Any) -> None:
        self.knows_graph = True
        accumulates, self.require_backward_grad_sync = not self.require_backward_grad_sync, True
        with torch.random.fork_rng(devices=[] if self.device_ids is None else self.device_ids):
            super().forward(*args).backward()
        self.zero_grad(set_to_none=True)
        self.require_backward_grad_sync = not accumulates


def wrap(module: nn.Module, device: str, strategy: DistributedStrategy = "ddp") -> nn.Module:
    """What the loop calls for the loss: with several ranks, backward passes then average gradients over them."""
    if not dist.is_initialized():
        return module
    if strategy == "fsdp":
        roots = (getattr(child, _ROOT, None) for child in module.modules())
        return Sharded(module, next(root for root in roots if root is not None))
    with warnings.catch_warnings():
        # 2.13 deprecates broadcast_buffers but has nothing yet that also leaves them alone at the start.
        warnings.simplefilter("ignore", FutureWarning)
        replicated = Replicated(
            module,
            device_ids=None if device == "cpu" else [torch.device(device).index],
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            static_graph=True,
        )
    refuse_unequal_weights(module)  # DDP has just sent those of rank 0 to all
    return replicated


@contextmanager
def accumulating(module: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Around forward and backward pass of one micro-batch of what `wrap` gave: only the last one of a step talks."""
    if isinstance(module, Replicated) and not is_last:
        with module.no_sync():
            yield
        return
    if isinstance(module, Sharded) and isinstance(module.root, FSDPModule):
        module.root.set_requires_gradient_sync(is_last)
        module.root.set_is_last_backward(is_last)
    yield


def clip(model: nn.Module, limit: float) -> Tensor:
    """Scale gradients down to a global norm of `limit` (0: never); return the norm before, 0-d, without a host sync."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    local = [g.to_local() if isinstance(g, DTensor) else g for g in gradients]
    norm = nn.utils.get_total_norm(local)
    if any(isinstance(gradient, DTensor) for gradient in gradients):
        squared = norm.square()
        dist.all_reduce(squared)
        norm = squared.sqrt()
    if limit:
        torch._foreach_mul_(local, torch.clamp(limit / (norm + 1e-6), max=1.0))  # as in nn.utils
    return norm


def full_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the whole weights on the CPU of the main rank, {} on the others; all ranks call this.

    Beside them a rank holds one tensor at a time whole, and what gathering it takes.
    """
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if is_main:
            found[name] = whole.detach().to("cpu", copy=True)
        del whole  # before the next one is gathered
    return found


def refuse_unequal_weights(model: nn.Module) -> None:
    """Raise RuntimeError, naming tensor and rank, unless all ranks have the same whole weights."""
    refuse_unequal({name: torch.hash_tensor(tensor) for name, tensor in model.state_dict().items()})


def refuse_unequal(digests: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError, naming tensor and rank, unless all ranks have the same digests, each of `torch.hash_tensor`."""
    if not dist.is_initialized():
        return
    own = torch.stack(list(digests.values())).view(torch.int64).cpu()
    ranks = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(ranks, own)
    for rank, found in enumerate(ranks):
        for name, is_equal in zip(digests, (found == ranks[0]).tolist(), strict=True):
            if not is_equal:
                raise RuntimeError(
                    f"the weights of rank {rank} differ from those of rank 0 at {name} after they were sent to all; "
                    "check the machines' memory and links, then start again"
                )


def any_rank(flags: Sequence[bool]) -> list[bool]:
    """For each flag: did any rank raise it? All ranks get the same answer, without waiting for their devices."""
    if not dist.is_initialized():
        return list(flags)
    raised = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(flag) for flag in raised.tolist()]


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Sums in float64, place by place."""
    if not dist.is_initialized():
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]
