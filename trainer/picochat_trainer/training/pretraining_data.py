"""What base pretraining reads: both sides of a token store in one of the three dataset modes, and what to say of them.

memory   the training side is copied into one array; windows over it
sharded  the same windows in the same order, read from the mapped shards
packed   rows that each begin with a document or go on with one, planned from lengths alone
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from picochat_contract.configs import BaseConfig
from picochat_contract.holdout import held_out_fraction

from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.packing import PackedRows, load_plan, pack, save_plan
from picochat_trainer.training.reader import Batching, PackedReader, RowReader, WindowReader
from picochat_trainer.training.split import Split, split_store
from picochat_trainer.training.tokens import ArrayTokens, TokenSource

MAX_LISTED: Final = 10_000  # held-out documents in the report; holdout.json has all
HOLDOUT_FORMAT: Final = "picochat-holdout"


@dataclass(frozen=True, kw_only=True)
class PretrainingData:
    """A split store with its training reader."""

    store: TokenStore
    config: BaseConfig
    split: Split
    train: TokenSource
    """The training side with extra documents, as windows would read it."""
    val: TokenSource
    plan: PackedRows | None
    batches: RowReader

    def facts(self) -> dict[str, Any]:
        """`dataset` of train_report.json."""
        split = self.split
        indices = split.held_out[:MAX_LISTED]
        return {
            "dataset_mode": self.config.dataset_mode,
            "split_mode": split.mode,
            "split_note": split.note,
            "num_documents": self.store.num_documents,
            "num_train_documents": len(split.train) - split.num_extra,
            "num_extra_documents": split.num_extra,
            "num_val_documents": len(split.held_out),
            "train_tokens": len(self.train),
            "val_tokens": len(self.val),
            "dropped_tokens": self._dropped_tokens(),
            "packing": None
            if self.plan is None
            else {
                "num_rows": len(self.plan),
                "row_tokens": self.plan.row_len,
                "used_fraction": self.plan.used_tokens / self.plan.num_tokens,
                "filled_fraction": self.plan.filled_fraction,
            },
            "val_documents": self._held_out_ids[:MAX_LISTED],
            "val_indices": indices.tolist(),
            "val_documents_omitted": len(split.held_out) - len(indices),
            "val_documents_sha256": hashlib.sha256("\n".join(self._held_out_ids).encode()).hexdigest(),
            "val_labels": self.store.document_paths(indices),
            "corpus_sha256": self.store.corpus_sha256,
            "tokens_sha256": self.store.sha256,
        }

    def holdout(self) -> dict[str, Any]:
        """Content of holdout.json: every held-out document, by index and by id."""
        return {
            "format": HOLDOUT_FORMAT,
            "split_mode": self.split.mode,
            "val_fraction": self.config.val_fraction,
            "seed": self.config.seed,
            "corpus_sha256": self.store.corpus_sha256,
            "num_documents": self.store.num_documents,
            "document_indices": self.split.held_out.tolist(),
            "document_ids": self._held_out_ids,
        }

    def describe(self) -> str:
        text = f"{len(self.train):,} training tokens, {len(self.val):,} held out; read as {self.config.dataset_mode}"
        if self.plan is None:
            return text
        return f"{text}: {len(self.plan):,} rows, {self.plan.filled_fraction:.1%} full"

    @property
    def val_document_starts(self) -> NDArray[np.int64]:
        """Places in `val` at which documents, or their held-out ends, begin."""
        lengths = self.split.val.lengths
        return np.cumsum(lengths) - lengths

    @cached_property
    def train_documents(self) -> NDArray[np.int64]:
        """Index in the store of each document of the training side, in the order of `split.corpus_train`."""
        trains = np.ones(self.store.num_documents, dtype=np.bool_)
        trains[self.split.held_out] = False
        return np.flatnonzero(trains)

    @cached_property
    def _held_out_ids(self) -> list[str]:
        return self.store.document_ids(self.split.held_out)

    def _dropped_tokens(self) -> int:
        """Training tokens that no row of an epoch holds, at most: the rest after the last window, or what packing
        left out."""
        if self.plan is not None:
            return self.plan.num_tokens - self.plan.used_tokens
        windows = (len(self.train) - self.config.model.sequence_len) // self.config.model.sequence_len
        return len(self.train) - 1 - windows * self.config.model.sequence_len


def split_for(store: TokenStore, config: BaseConfig) -> Split:
    """Both sides of `store` as `config` says, without extra documents."""
    fraction = held_out_fraction(config.val_fraction, store.num_tokens)
    return split_store(store, val_fraction=fraction, mode=config.split_mode, seed=config.seed)


def read_pretraining_data(
    store: TokenStore,
    config: BaseConfig,
    split: Split,
    *,
    rank: int = 0,
    world_size: int = 1,
    plan_dir: Path | None = None,
) -> PretrainingData:
    """Open a reader over the training side of `split`; rank 0 leaves its packing plan in `plan_dir` for the others."""
    batching = Batching(
        sequence_len=config.model.sequence_len,
        device_batch_size=config.device_batch_size,
        grad_accum_steps=config.grad_accum_steps,
        rank=rank,
        world_size=world_size,
        seed=config.seed,
    )
    train: TokenSource = split.train_tokens
    val: TokenSource = split.val_tokens
    plan: PackedRows | None = None
    batches: RowReader
    if config.dataset_mode == "packed":
        plan = _plan(split, batching, plan_dir if world_size > 1 else None)
        batches = PackedReader(split.space, plan, batching, pad_id=store.bos_id)
    else:
        if config.dataset_mode == "memory":
            train, val = ArrayTokens(split.train_tokens.to_array()), ArrayTokens(split.val_tokens.to_array())
        batches = WindowReader(train, batching)
    return PretrainingData(
        store=store,
        config=config,
        split=split,
        train=train,
        val=val,
        plan=plan,
        batches=batches,
    )


def _plan(split: Split, batching: Batching, shared: Path | None) -> PackedRows:
    if shared is not None and batching.rank > 0:
        return load_plan(shared)
    plan = pack(split.train, batching.sequence_len + 1, batching.seed)
    if shared is not None:
        save_plan(plan, shared)
    return plan
