"""A few training steps on one or several ranks, without a stage around them.

Rank 0 writes what each way of training gave as JSON.
"""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from picochat_contract.configs import BaseConfig, DistributedStrategy, ModelConfig
from picochat_contract.manifest import StageJob
from picochat_trainer.context import StageContext
from picochat_trainer.model import GPT
from picochat_trainer.training import compiled, distributed, first_weights
from picochat_trainer.training.checkpoint import Metadata, Weights, open_checkpoint, save_weights
from picochat_trainer.training.compiled import LossModule, compile_pieces, eager
from picochat_trainer.training.first_weights import WeightSource, build_model, drawn, saved
from picochat_trainer.training.hardware import autocast
from picochat_trainer.training.optim import make_optimizer
from picochat_trainer.training.prefetch import DeviceStep, MicroBatch
from picochat_trainer.training.step import TrainStep
from picochat_trainer.training.tensor_files import size_of
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.tensor import DTensor

from support.allocations import Allocations

VOCAB = 61
ROWS = 8  # of a step, over all ranks and micro-batches
ACCUM = 2
STEPS = 5
SEED = 5
LIMIT = 0.5  # of the gradient norm: below what the first steps have
CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=32, sequence_len=16)
DEEP = CONFIG.model_copy(update={"n_layer": 6})  # the whole is far more than half of it and a parameter


def model_of(seed: int = SEED, **changes: Any) -> GPT:
    model = GPT(CONFIG.model_copy(update=changes), VOCAB)
    model.init_weights(seed)
    return model


def batch(step: int) -> Tensor:
    return torch.randint(VOCAB, (ROWS, 17), generator=torch.Generator().manual_seed(step))


def steps(
    strategy: DistributedStrategy | None,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    compiled: bool = False,
    checkpointing: bool = False,
    chunk: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Losses, gradient norms, validation losses and final weights; None is one process with all rows."""
    world = 1 if strategy is None else dist.get_world_size()
    rank = 0 if strategy is None else dist.get_rank()
    if strategy is None:
        model = model_of(**changes).to(device)
    else:
        shape = CONFIG.model_copy(update=changes)
        model = build_model(shape, VOCAB, drawn(SEED), device=device, strategy=strategy, dtype=dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.gradient_checkpointing = checkpointing
    model.loss_chunk_tokens = chunk
    if compiled:
        compile_pieces(model)
    module: nn.Module = LossModule(model)
    if strategy is not None:
        module = distributed.wrap(module, device, strategy)
    found: dict[str, Any] = {"losses": [], "norms": [], "val": []}
    for step in range(STEPS):
        rows = batch(step).to(device).view(ACCUM, world, ROWS // ACCUM // world, 17)[:, rank]
        total = 0.0
        for micro, tokens in enumerate(rows):
            with distributed.accumulating(module, is_last=micro == ACCUM - 1), autocast(device, dtype):
                loss = module(tokens[:, :-1], tokens[:, 1:]) / ACCUM
                loss.backward()
            total += loss.item()
        norm = distributed.clip(model, LIMIT)
        assert norm.ndim == 0 and not isinstance(norm, DTensor)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found["losses"].append(total if strategy is None else distributed.sum_over_ranks([total])[0] / world)
        found["norms"].append(float(norm))
        with torch.no_grad(), eager(), autocast(device, dtype):
            tokens = batch(100).to(device)
            found["val"].append(float(model.token_losses(tokens[:, :-1], tokens[:, 1:]).mean()))
    found["sharded"] = all(isinstance(p, DTensor) for p in model.parameters())
    found["local"] = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
    tensors = distributed.full_tensors(model) if strategy is not None else model.state_dict()
    found["weights"] = {name: tensor.double().square().sum().item() for name, tensor in tensors.items()}
    return found


def beginning(strategy: DistributedStrategy, source: WeightSource) -> dict[str, Any]:
    """What this rank holds while a model begins and is exported, bytes, and what the model is then."""
    with Allocations() as building:
        model = build_model(DEEP, VOCAB, source, device="cpu", strategy=strategy)
    with Allocations() as exporting:
        exported = distributed.full_tensors(model)
    expected = GPT(DEEP, VOCAB)
    expected.init_weights(SEED)
    wholes = {n: t.full_tensor() if isinstance(t, DTensor) else t for n, t in model.state_dict().items()}
    wholes |= dict(model.named_buffers())
    return {
        "is_equal": all(
            torch.equal(wholes[n], t)
            for n, t in {**expected.state_dict(), **dict(expected.named_buffers())}.items()
        ),
        "num_exported": sum(t.numel() for t in exported.values()),
        "built": building.most,
        "export": exporting.most,
        "own": size_of(
            {n: t.to_local() if isinstance(t, DTensor) else t for n, t in model.state_dict().items()}
        ),
    }


def only_on_main(source: WeightSource) -> WeightSource:
    """`source`, which no other rank may ask."""

    def ask(model: GPT) -> Iterator[Tensor]:
        assert dist.get_rank() == 0
        return source(model)

    return ask


def built_whole() -> int:
    """Bytes that a rank holds which fills the model before it shares it out."""
    with Allocations() as seen:
        model = GPT(DEEP, VOCAB)
        model.init_weights(SEED)
        distributed.shard(model, "cpu", "fsdp")
    return seen.most


def badly_sent(tensor: Tensor, src: int) -> None:
    """In place of a broadcast: leaves each rank another value."""
    tensor.normal_(generator=torch.Generator().manual_seed(dist.get_rank()))


def beginnings(folder: Path) -> dict[str, Any]:
    """Of each rank, for models that are drawn and that are read."""
    if dist.get_rank() == 0:
        expected = model_of(n_layer=DEEP.n_layer)
        weights = Weights(config=DEEP, vocab_size=VOCAB, tensors=expected.state_dict())
        save_weights(folder / "saved", weights, Metadata(kind="last", step=0))
    dist.barrier()
    source = saved(open_checkpoint(folder / "saved"))
    own = {
        "drawn": beginning("fsdp", only_on_main(drawn(SEED))),
        "read": beginning("fsdp", only_on_main(source)),
        "ddp": beginning("ddp", only_on_main(drawn(SEED))),
        "whole first": built_whole(),
    }
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, own)
    with mock.patch.object(first_weights.dist, "broadcast", badly_sent):
        unequal = raised(lambda: build_model(CONFIG, VOCAB, drawn(SEED), device="cpu", strategy="fsdp"))
    return {"ranks": ranks, "badly_sent": unequal}


def compiling(folder: Path, *, broken_rank: int | None = None) -> dict[str, Any]:
    """Whether a sharded model is compiled, and its first loss and gradient norm then. The back end generates no code."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model = build_model(CONFIG, VOCAB, drawn(SEED), device="cpu", strategy="fsdp").train()
    job = StageJob.model_validate({"stage": "base", "config": {}})
    context = StageContext(folder / f"compiling-{broken_rank}", job, rank=rank, world_size=world)
    quick = partial(torch.compile, dynamic=False, backend="aot_eager")
    compiler = no_compiler if rank == broken_rank else lambda function, **options: quick(function)
    with mock.patch.object(torch, "compile", compiler):
        is_compiled = compiled.compile_loss(model, [(ROWS // world, 16)], context, None)
    tokens = batch(0).view(world, ROWS // world, 17)[rank]
    loss = distributed.wrap(LossModule(model), "cpu", "fsdp")(tokens[:, :-1], tokens[:, 1:])
    loss.backward()
    return {
        "compiled": distributed.sum_over_ranks([is_compiled])[0],
        "loss": distributed.sum_over_ranks([loss.item() / world])[0],
        "norm": float(distributed.clip(model, 0.0)),
        "num_graphs": counters["stats"]["unique_graphs"],
    }


def no_compiler(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """In place of torch.compile: as there, what is wrong comes out when the function is called."""

    def fail(*args: Any) -> Any:
        raise RuntimeError("no compiler here")

    return fail


def talking(folder: Path, num_micro_batches: int = 3) -> dict[str, Any]:
    """How often this rank of DDP sends gradients in each of a few steps, how DDP was set up, and where gradients lie."""
    rank, world = dist.get_rank(), dist.get_world_size()
    model = build_model(CONFIG, VOCAB, drawn(SEED), device="cpu", strategy="ddp").train()
    wrapped = distributed.wrap(LossModule(model), "cpu", "ddp")
    assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
    buckets: list[tuple[bool, int]] = []

    def send(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        buckets.append((bucket.is_last(), bucket.buffer().untyped_storage().data_ptr()))
        return allreduce_hook(dist.group.WORLD, bucket)

    wrapped.register_comm_hook(None, send)
    job = StageJob.model_validate({"stage": "base", "config": {}})
    context = StageContext(folder / "talking", job, rank=rank, world_size=world)
    config = BaseConfig(grad_clip=LIMIT)
    optimizer = make_optimizer(model, config, num_ranks=world)
    step = TrainStep(context, config, model, wrapped, optimizer, None, None)
    rounds = []
    for number in range(STEPS):
        rows = batch(number)[: world * num_micro_batches].view(num_micro_batches, world, 1, 17)[:, rank]
        micro_batches = tuple(
            MicroBatch(tokens=row[:, :-1], targets=row[:, 1:], share=1 / world / num_micro_batches)
            for row in rows
        )
        buckets.clear()
        found = step.backward(DeviceStep(micro_batches=micro_batches, shapes=[], position={}))
        rounds.append(sum(is_last for is_last, _ in buckets))
        places = {parameter.grad.untyped_storage().data_ptr() for parameter in model.parameters()}
        step.update(found.values)
    return {
        "rounds": rounds,
        "static_graph": wrapped.static_graph,
        "sends_buffers": wrapped.broadcast_buffers,
        "gradient_as_bucket_view": wrapped.gradient_as_bucket_view,
        "gradients_lie_in_buckets": places <= {place for _, place in buckets},
    }


def raised(function: Callable[[], object]) -> str:
    try:
        function()
    except RuntimeError as error:
        return str(error)
    return ""


def every_way() -> dict[str, Any]:
    """What one process, DDP and FSDP find, in the many ways of each."""
    found: dict[str, Any] = {"one": steps(None), "ddp": steps("ddp"), "fsdp": steps("fsdp")}
    found["checkpointed"] = {
        strategy: steps(strategy, checkpointing=True, chunk=13) for strategy in ("ddp", "fsdp")
    }
    found["untied"] = [steps(strategy, tie_embeddings=False) for strategy in (None, "fsdp")]
    found["bf16"] = [steps(strategy, dtype=torch.bfloat16) for strategy in ("ddp", "fsdp")]
    odd = model_of(seed=5 + dist.get_rank())
    found["unequal"] = raised(lambda: distributed.refuse_unequal_weights(odd))
    distributed.wrap(LossModule(odd), "cpu", "ddp")
    found["mended"] = raised(lambda: distributed.refuse_unequal_weights(odd))
    found["any"] = distributed.any_rank([dist.get_rank() == 1, False])
    return found


def work(rank: int, num_ranks: int, folder: str, is_compiled: bool) -> None:
    """What `rank` does; the main one writes `found.json` into `folder`."""
    join("gloo", rank, num_ranks, folder)
    if is_compiled:
        found = {"one": steps(None), "compiled": steps("fsdp", compiled=True)}
    else:
        found = {**every_way(), "beginnings": beginnings(Path(folder))}
        found["talking"] = talking(Path(folder))
        found["compiling"] = [compiling(Path(folder), broken_rank=broken) for broken in (None, 1, 0)]
    leave(rank, folder, found)


def work_on_devices(rank: int, num_ranks: int, folder: str, kind: str) -> None:
    """The same steps by one process, DDP and FSDP, over gloo where `kind` is cpu and over NCCL where it is cuda."""
    device = "cpu"
    if kind == "cuda":
        device = f"cuda:{rank}"
        torch.cuda.set_device(device)
    join("gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl", rank, num_ranks, folder)
    found = {"one": steps(None, device=device)}
    for strategy in ("ddp", "fsdp"):
        found[strategy] = steps(strategy, device=device)
        found[f"{strategy}, bf16"] = steps(strategy, device=device, dtype=torch.bfloat16)
        found[f"{strategy}, checkpointed"] = steps(strategy, device=device, checkpointing=True, chunk=13)
    leave(rank, folder, found)


def join(backend: str, rank: int, num_ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", num_ranks)
    timeout = timedelta(seconds=100)
    dist.init_process_group(backend, store=store, rank=rank, world_size=num_ranks, timeout=timeout)


def leave(rank: int, folder: str, found: dict[str, Any]) -> None:
    if rank == 0:
        Path(folder, "found.json").write_text(json.dumps(found))
    distributed.finish()
    distributed.exit_process(0)
