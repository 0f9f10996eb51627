"""Random corpora, with empty, tiny, huge and repeated documents: no mode reads for training what is held out."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picochat_contract.configs import BaseConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.bpb import BpbValidator
from picochat_trainer.training.pretraining_data import PretrainingData, read_pretraining_data, split_for
from picochat_trainer.training.split import ExtraDocument
from picochat_trainer.training.tokens import TokenSpace

MakeTokens = Callable[[Path, list[str]], TokenStore]
T = 8
BYTES = [0] * 4 + [1] * 256  # of the byte tokenizer's ids
EXTRA = [ExtraDocument(tokens=(0, 5, 6, 7), repeats=3), ExtraDocument(tokens=(0, *range(4, 44)), repeats=1)]


def random_corpus(rng: random.Random) -> list[str]:
    """1 to 40 documents; about one in five is a copy of another, with or without other space around it."""
    documents: list[str] = []
    for _ in range(rng.choice([1, 2, 3, 8, 40])):
        size = rng.choice([0, 1, rng.randrange(2, T), rng.randrange(T, 60), rng.randrange(60, 700)])
        text = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz\n ", k=size))
        if documents and rng.random() < 0.2:
            text = rng.choice(["", "\n", " "]) + rng.choice(documents).replace(" ", rng.choice([" ", "\r\n"]))
        documents.append(text)
    return documents


def settings(rng: random.Random, mode: str) -> BaseConfig:
    return BaseConfig.model_validate(
        {
            "model": {"sequence_len": T},
            "device_batch_size": rng.choice([1, 3]),
            "dataset_mode": mode,
            "split_mode": rng.choice(["document", "document", "window"]),
            "val_fraction": rng.choice([0.001, 0.1, 0.3, 0.5, 0.999]),
            "seed": rng.randrange(100),
        }
    )


def addresses_read(data: PretrainingData, read: Callable[[], Any], spy: pytest.MonkeyPatch) -> set[int]:
    """Every address of the space of tokens that `read` copies."""
    found: set[int] = set()
    copy = TokenSpace.copy

    def recorded(space: TokenSpace, addresses: Any, lengths: Any, *rest: Any) -> None:
        for address, length in zip(addresses.tolist(), lengths.tolist(), strict=True):
            found.update(range(address, address + length))
        copy(space, addresses, lengths, *rest)

    with spy.context() as patch:
        patch.setattr(TokenSpace, "copy", recorded)
        read()
    return found


def addresses_of(spans: Any) -> set[int]:
    starts, lengths = spans.addresses.tolist(), spans.lengths.tolist()
    return {at for start, length in zip(starts, lengths, strict=True) for at in range(start, start + length)}


def two_epochs(data: PretrainingData) -> None:
    while data.batches.position["epoch"] < 2:
        data.batches.next_step()


@pytest.mark.parametrize("mode", ["memory", "sharded", "packed"])
@pytest.mark.parametrize("seed", range(12))
def test_what_is_held_out_is_read_by_validation_only(
    tmp_path: Path, make_tokens: MakeTokens, monkeypatch: pytest.MonkeyPatch, mode: str, seed: int
) -> None:
    rng = random.Random(seed)
    documents = random_corpus(rng)
    store = make_tokens(tmp_path, documents)
    config = settings(rng, mode)
    split = split_for(store, config).with_extra(EXTRA, config.seed)
    train, val = addresses_of(split.train), addresses_of(split.val)
    extra = set(range(store.num_tokens, store.num_tokens + 4 + 41))
    assert not train & val
    assert train | val == set(range(store.num_tokens)) | extra
    assert not val & extra
    held_out = set(split.held_out.tolist())
    sides = [
        {" ".join(text.split()) for i, text in enumerate(documents) if (i in held_out) is side}
        for side in (True, False)
    ]
    assert not sides[0] & sides[1]
    assert split.mode == "window" or (sides[0] and sides[1])

    def read() -> PretrainingData:
        return read_pretraining_data(store, config, split)

    try:
        data = read()
    except ContractError as error:
        assert error.code is Code.CORPUS_TOO_SMALL
        return

    def train_all() -> None:
        two_epochs(data if mode != "memory" else read())

    seen = addresses_read(data, train_all, monkeypatch)
    if mode == "memory":  # both sides are copied; which windows are cut is that of `sharded`
        assert np.array_equal(
            data.train.windows(np.array([0]), len(data.train))[0], split.train_tokens.to_array()
        )
        assert seen <= train | val
    else:
        assert seen <= train
    if mode == "packed":
        assert len(train - seen) <= 1  # a last document without text
    validator = BpbValidator(data.val, BYTES, sequence_len=T, batch_rows=3)
    tokens = split.val_tokens.to_array()
    assert validator.num_targets == int((tokens[1:] >= 4).sum())  # every token but BOS, and the first, once
    if mode != "memory":
        assert addresses_read(data, lambda: validator.num_targets, monkeypatch) <= val


@pytest.mark.parametrize("seed", range(3))
def test_memory_and_sharded_cut_the_same_windows(tmp_path: Path, make_tokens: MakeTokens, seed: int) -> None:
    rng = random.Random(seed)
    store = make_tokens(tmp_path, ["first text of some length", *random_corpus(rng), "x" * 200])
    rows: list[list[Any]] = []
    for mode in ("memory", "sharded"):
        config = settings(random.Random(seed), mode)
        batches = read_pretraining_data(store, config, split_for(store, config)).batches
        rows.append(
            [[t.tolist() for t in micro] for _ in range(9) for micro in batches.next_step().micro_batches]
        )
    assert rows[0] == rows[1]
