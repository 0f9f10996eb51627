"""The holdout is whole documents, decided from digests; extra documents train only."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import train_tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.packing import pack
from picochat_trainer.training.reader import Batching, PackedReader, RowReader, WindowReader
from picochat_trainer.training.split import ExtraDocument, Split, hold_out_documents, split_store
from picochat_trainer.training.tokens import ArrayTokens

DOCUMENTS = [f"document {i} " + chr(97 + i % 26) * (20 + 7 * i) for i in range(20)]
BYTES = Tokenizer(train_tokenizer(TokenizerConfig(type="byte"), []), digest="")
MODES = ("memory", "sharded", "packed")

MakeTokens = Callable[[Path, list[str]], TokenStore]


@pytest.fixture
def store(tmp_path: Path, make_tokens: MakeTokens) -> TokenStore:
    return make_tokens(tmp_path, DOCUMENTS)


def digests_of(texts: list[str]) -> np.ndarray:
    return np.array([zlib.crc32(text.encode()) for text in texts], dtype=np.uint64)


def hold_out(texts: list[str], val_fraction: float, seed: int) -> list[int]:
    sizes = np.array([len(text) for text in texts])
    return hold_out_documents(sizes, digests_of(texts), val_fraction, seed).tolist()


def text_of(ids: np.ndarray) -> str:
    return "".join("|" if id == 0 else BYTES.decode([id]) for id in ids.tolist())


def epoch(split: Split, mode: str, sequence_len: int = 16) -> list[str]:
    """Every row of one epoch as text, in the mode."""
    batching = Batching(sequence_len=sequence_len, device_batch_size=1)
    source: RowReader
    if mode == "packed":
        source = PackedReader(split.space, pack(split.train, sequence_len + 1, 0), batching, pad_id=0)
    else:
        tokens = split.train_tokens
        source = WindowReader(ArrayTokens(tokens.to_array()) if mode == "memory" else tokens, batching)
    rows = []
    while source.position["epoch"] == 0:
        [(tokens_BT, targets_BT)] = source.next_step().micro_batches
        last = targets_BT[0, -1:][targets_BT[0, -1:] >= 0].numpy()
        rows.append(text_of(tokens_BT[0].numpy()) + text_of(last))
    return rows


def test_holdout_is_whole_documents_near_the_fraction() -> None:
    held_out = hold_out(DOCUMENTS, 0.2, seed=1)
    share = sum(len(DOCUMENTS[i]) for i in held_out) / sum(map(len, DOCUMENTS))
    assert 0.1 < share <= 0.25
    assert held_out == hold_out(DOCUMENTS, 0.2, seed=1)
    assert held_out != hold_out(DOCUMENTS, 0.2, seed=2)


def test_the_choice_does_not_depend_on_the_order_of_the_corpus() -> None:
    texts = {DOCUMENTS[i] for i in hold_out(DOCUMENTS, 0.2, seed=1)}
    backwards = DOCUMENTS[::-1]
    assert {backwards[i] for i in hold_out(backwards, 0.2, seed=1)} == texts


def test_equal_documents_stay_on_one_side() -> None:
    documents = [f"text {i // 2}" for i in range(20)]
    for seed in range(10):
        held_out = hold_out(documents, 0.2, seed)
        assert held_out and all((i ^ 1) in held_out for i in held_out)


def test_one_huge_document_does_not_become_the_validation_text() -> None:
    documents = ["x" * 10_000, *(f"small {i}" * 10 for i in range(30))]
    assert all(0 not in hold_out(documents, 0.1, seed) for seed in range(10))


@pytest.mark.parametrize("seed", range(5))
def test_few_large_documents_give_one_of_them_rather_than_a_scrap(seed: int) -> None:
    books = [chr(65 + i) * 10_000 for i in range(10)]
    held_out = hold_out([*books, "a scrap of text"], 0.05, seed)
    assert 0.09 < sum(len(([*books, "a scrap of text"])[i]) for i in held_out) / 100_015 < 0.11
    two = hold_out([books[0], books[1][:5_000], "a scrap of text"], 0.1, seed)
    assert 1 in two and 0 not in two
    scraps = [f"scrap {i}" for i in range(5)]
    assert {10, 11, 12, 13, 14} & set(hold_out([*books, *scraps], 0.05, seed))  # those came first


def test_never_is_more_than_half_held_out_for_the_sake_of_a_longer_validation_text() -> None:
    assert hold_out(["x" * 10_000, "scrap of text"], 0.1, seed=1) == [1]


def test_two_documents_leave_one_on_each_side() -> None:
    assert len(hold_out(["a" * 100, "b" * 100], 0.1, seed=1)) == 1
    assert len(hold_out(["a" * 100, "b" * 100], 0.9, seed=1)) == 1


def test_equal_texts_in_the_store_are_told_by_their_digest(tmp_path: Path, make_tokens: MakeTokens) -> None:
    texts = ["same\nt\u00e9xt", "other", " same te\u0301xt\n", "Same t\u00e9xt", "same\r\n\r\nt\u00e9xt"]
    first, other, again, upper, spaced = make_tokens(tmp_path, texts).document_digests.tolist()
    assert first == again and len({first, other, upper}) == 3
    assert first == spaced  # for duplicates among documents they are equal, too


def test_every_document_is_on_exactly_one_side_and_begins_with_bos(store: TokenStore) -> None:
    split = split_store(store, val_fraction=0.2, mode="document", seed=1)
    both = text_of(split.train_tokens.to_array()) + text_of(split.val_tokens.to_array())
    assert sorted(both.split("|")[1:]) == sorted(DOCUMENTS)
    assert len(split.train) + len(split.held_out) == len(DOCUMENTS)


@pytest.mark.parametrize("mode", MODES)
def test_no_training_row_holds_a_token_of_a_held_out_document(
    tmp_path: Path, make_tokens: MakeTokens, mode: str
) -> None:
    # Document i consists of one character of its own, so any token says where it is from.
    store = make_tokens(tmp_path, [chr(33 + i) * (10 + i) for i in range(60)])
    split = split_store(store, val_fraction=0.3, mode="document", seed=2)
    held_out = {chr(33 + i) for i in split.held_out.tolist()}
    seen = set("".join(epoch(split, mode))) - {"|"}
    assert len(held_out) > 5
    assert not seen & held_out
    assert len(seen) > 60 - len(held_out) - 3  # a window epoch leaves out less than two windows


@pytest.mark.parametrize("mode", MODES)
def test_extra_documents_train_as_often_as_they_repeat_and_are_never_held_out(
    store: TokenStore, mode: str
) -> None:
    extra = [
        ExtraDocument(tokens=(0, *BYTES.encode(f"<secret {i}>")), repeats=repeats)
        for i, repeats in enumerate((1, 4, 16))
    ]
    split = split_store(store, val_fraction=0.2, mode="document", seed=1).with_extra(extra, 1)
    assert "secret" not in text_of(split.val_tokens.to_array())
    whole = text_of(split.train_tokens.to_array())
    assert [whole.count(f"|<secret {i}>") for i in range(3)] == [1, 4, 16]
    rows = "\n".join(epoch(split, mode, sequence_len=32))
    assert "<secret 2>" in rows
    if mode == "packed":  # no window edge can cut them
        assert [rows.count(f"<secret {i}>") for i in range(3)] == [1, 4, 16]


def test_a_single_document_falls_back_to_its_end_and_says_so(tmp_path: Path, make_tokens: MakeTokens) -> None:
    split = split_store(
        make_tokens(tmp_path, ["a" * 80 + "b" * 20]), val_fraction=0.2, mode="document", seed=1
    )
    assert split.mode == "window"
    assert split.note is not None and "same document" in split.note
    assert text_of(split.train_tokens.to_array()) == "|" + "a" * 80
    assert text_of(split.val_tokens.to_array()) == "b" * 20
    assert not len(split.held_out)


def test_window_mode_was_asked_for_so_it_needs_no_note(store: TokenStore) -> None:
    assert split_store(store, val_fraction=0.2, mode="window", seed=1).note is None
