"""A few training steps on one or several ranks, without a stage around them: torchrun -m support.rank_steps OUT.

Rank 0 writes what each way of training gave to OUT as JSON.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from picochat_contract.configs import DistributedStrategy, ModelConfig
from picochat_trainer.model import GPT
from picochat_trainer.training import distributed
from picochat_trainer.training.compiled import LossModule, compile_pieces, eager
from picochat_trainer.training.hardware import autocast
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

VOCAB = 61
ROWS = 8  # of a step, over all ranks and micro-batches
ACCUM = 2
STEPS = 5
LIMIT = 0.5  # of the gradient norm: below what the first steps have
CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=32, sequence_len=16)


def model_of(seed: int = 5, **changes: Any) -> GPT:
    model = GPT(CONFIG.model_copy(update=changes), VOCAB)
    model.init_weights(seed)
    return model


def batch(step: int) -> Tensor:
    return torch.randint(VOCAB, (ROWS, 17), generator=torch.Generator().manual_seed(step))


def steps(
    strategy: DistributedStrategy | None,
    *,
    dtype: torch.dtype | None = None,
    compiled: bool = False,
    checkpointing: bool = False,
    chunk: int | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Losses, gradient norms, validation losses and final weights; None is one process with all rows."""
    world = 1 if strategy is None else dist.get_world_size()
    rank = 0 if strategy is None else dist.get_rank()
    model = model_of(**changes)
    if strategy is not None:
        distributed.shard(model, "cpu", strategy, dtype=dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.gradient_checkpointing = checkpointing
    model.loss_chunk_tokens = chunk
    if compiled:
        compile_pieces(model)
    module: nn.Module = LossModule(model)
    if strategy is not None:
        module = distributed.wrap(module, "cpu", strategy)
    found: dict[str, Any] = {"losses": [], "norms": [], "val": []}
    for step in range(STEPS):
        rows = batch(step).view(ACCUM, world, ROWS // ACCUM // world, 17)[:, rank]
        total = 0.0
        for micro, tokens in enumerate(rows):
            with distributed.accumulating(module, is_last=micro == ACCUM - 1), autocast("cpu", dtype):
                loss = module(tokens[:, :-1], tokens[:, 1:]) / ACCUM
                loss.backward()
            total += loss.item()
        norm = distributed.clip(model, LIMIT)
        assert norm.ndim == 0 and not isinstance(norm, DTensor)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found["losses"].append(total if strategy is None else distributed.sum_over_ranks([total])[0] / world)
        found["norms"].append(float(norm))
        with torch.no_grad(), eager(), autocast("cpu", dtype):
            tokens = batch(100)
            found["val"].append(float(model.token_losses(tokens[:, :-1], tokens[:, 1:]).mean()))
    found["sharded"] = all(isinstance(p, DTensor) for p in model.parameters())
    found["local"] = sum(p.to_local().numel() for p in model.parameters() if isinstance(p, DTensor))
    tensors = distributed.full_tensors(model) if strategy is not None else model.state_dict()
    found["weights"] = {name: tensor.double().square().sum().item() for name, tensor in tensors.items()}
    return found


def raised(function: Callable[[], object]) -> str:
    try:
        function()
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> None:
    out = Path(sys.argv[1])
    compiled = "--compiled" in sys.argv
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found: dict[str, Any] = {"one": steps(None), "ddp": steps("ddp"), "fsdp": steps("fsdp")}
    found["checkpointed"] = {
        strategy: steps(strategy, checkpointing=True, chunk=13) for strategy in ("ddp", "fsdp")
    }
    found["untied"] = [steps(strategy, tie_embeddings=False) for strategy in (None, "fsdp")]
    found["bf16"] = [steps(strategy, dtype=torch.bfloat16) for strategy in ("ddp", "fsdp")]
    if compiled:
        found["compiled"] = steps("fsdp", compiled=True)
    odd = model_of(seed=5 + dist.get_rank())
    found["unequal"] = raised(lambda: distributed.refuse_unequal_weights(odd))
    distributed.wrap(LossModule(odd), "cpu", "ddp")
    found["mended"] = raised(lambda: distributed.refuse_unequal_weights(odd))
    found["any"] = distributed.any_rank([dist.get_rank() == 1, False])
    if dist.get_rank() == 0:
        out.write_text(json.dumps(found))
    distributed.finish()
    distributed.exit_process(0)


if __name__ == "__main__":
    main()
