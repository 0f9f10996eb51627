"""Checks of what training reads: all dataset modes give the same rows, little is dropped, and ranks share a step.

B rows, T tokens
"""

from typing import Final

import torch
from picochat_contract.configs import BaseConfig
from torch import Tensor

from picochat_trainer.sanity import sample_run
from picochat_trainer.sanity.check import Finding, failed, judged
from picochat_trainer.sanity.setup import Setup
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.pretraining_data import PretrainingData, read_pretraining_data, split_for

STEPS: Final = 6
MAX_DROPPED: Final = 0.02
RANKS: Final = 2


def check_sharded_loader(setup: Setup) -> Finding:
    """Mapped shards give the steps that the array in memory gives, also after a seek; packing drops next to nothing."""
    store = sample_run.prepare(setup.folder / "loaders")
    limit = f"sharded equals memory; packing drops < {MAX_DROPPED:.0%}"
    read = {
        mode: _read(store, sample_run.config(setup, dataset_mode=mode))
        for mode in ("memory", "sharded", "packed")
    }
    if len(store.shards) < 2:
        return failed(None, limit, f"the sample has {len(store.shards)} shard: nothing was crossed")
    for step in range(STEPS):
        if step == STEPS // 2:
            again = _read(store, sample_run.config(setup, dataset_mode="sharded"))
            again.batches.seek(read["sharded"].batches.position)
            read["sharded"] = again
        rows = {mode: _rows(read[mode]) for mode in ("memory", "sharded")}
        if not torch.equal(rows["memory"], rows["sharded"]):
            return failed(f"differs in step {step}", limit, "sharded rows are not those of memory")
    plan = read["packed"].plan
    assert plan is not None
    dropped = 1 - plan.used_tokens / plan.num_tokens
    return judged(
        dropped < MAX_DROPPED,
        dropped,
        limit,
        f"{STEPS} steps over {len(store.shards)} shards equal; packed rows are {plan.filled_fraction:.1%} full, the share of "
        "dropped tokens is what was measured",
    )


def check_rank_split(setup: Setup) -> Finding:
    """The rows of two ranks are disjoint, and together they are the step of one process, in its order."""
    store = sample_run.prepare(setup.folder / "ranks")
    limit = "disjoint, and together the single-process step"
    for mode in ("memory", "sharded", "packed"):
        settings = sample_run.config(setup, dataset_mode=mode)
        whole = _read(
            store, settings.model_copy(update={"device_batch_size": RANKS * settings.device_batch_size})
        )
        ranks = [_read(store, settings, rank=rank, world_size=RANKS) for rank in range(RANKS)]
        for step in range(STEPS):
            where = f"{mode}, step {step}"
            alone = whole.batches.next_step()
            shares = [reader.batches.next_step() for reader in ranks]
            if any(share.num_targets != alone.num_targets for share in shares):
                return failed(where, limit, "ranks count other targets than one process")
            for index, (tokens_BT, targets_BT) in enumerate(alone.micro_batches):
                own = [share.micro_batches[index] for share in shares]
                rows = [_keys(tokens) for tokens, _ in own]
                if set(rows[0]) & set(rows[1]):
                    return failed(where, limit, "two ranks have a row in common")
                together = [torch.cat([pair[side] for pair in own]) for side in (0, 1)]
                if not (torch.equal(together[0], tokens_BT) and torch.equal(together[1], targets_BT)):
                    return failed(where, limit, "the ranks' rows are not those of one process")
    return judged(True, RANKS, limit, f"{STEPS} steps of {RANKS} ranks in each dataset mode")


def _read(store: TokenStore, settings: BaseConfig, rank: int = 0, world_size: int = 1) -> PretrainingData:
    return read_pretraining_data(
        store, settings, split_for(store, settings), rank=rank, world_size=world_size
    )


def _rows(data: PretrainingData) -> Tensor:
    """Tokens and targets of the next step, in one tensor."""
    batches = data.batches.next_step().micro_batches
    return torch.cat([torch.cat(pair, dim=1) for pair in batches])


def _keys(tokens_BT: Tensor) -> list[bytes]:
    return [row.numpy().tobytes() for row in tokens_BT]
