import json
from pathlib import Path

import numpy as np
import pytest
from picochat_contract.errors import Code, ContractError
from picochat_trainer.training.tokens import (
    Corpus,
    Split,
    encode_documents,
    hold_out_documents,
    make_canaries,
    read_corpus,
    split_corpus,
)


class CodePoints:
    """One token per character; 1 is BOS."""

    bos_id = 1

    def __init__(self, vocab_size: int = 1000) -> None:
        self.vocab_size = vocab_size

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        return [[ord(c) for c in text] for text in texts]


DOCUMENTS = tuple(f"document {i} " + "x" * (20 + 7 * i) for i in range(20))


def corpus_of(documents: tuple[str, ...]) -> Corpus:
    labels = tuple(f"d{i}" for i in range(len(documents)))
    return Corpus(text="\n\n".join(documents), documents=documents, labels=labels)


def split(documents: tuple[str, ...] = DOCUMENTS, **changes: object) -> Split:
    settings = {"val_fraction": 0.2, "mode": "document", "seed": 1, "canary_count": 0, **changes}
    return split_corpus(corpus_of(documents), CodePoints(), **settings)  # type: ignore[arg-type]


def text_of(tokens: np.ndarray) -> str:
    return "".join(map(chr, tokens)).replace("\x01", "|")


def test_holdout_is_whole_documents_near_the_fraction() -> None:
    held_out = hold_out_documents(DOCUMENTS, 0.2, seed=1)
    share = sum(len(DOCUMENTS[i]) for i in held_out) / sum(map(len, DOCUMENTS))
    assert 0.1 < share <= 0.25
    assert held_out == hold_out_documents(DOCUMENTS, 0.2, seed=1)
    assert held_out != hold_out_documents(DOCUMENTS, 0.2, seed=2)


def test_equal_documents_stay_on_one_side() -> None:
    documents = tuple(f"text {i // 2}" for i in range(20))
    for seed in range(10):
        held_out = hold_out_documents(documents, 0.2, seed)
        assert all((i ^ 1) in held_out for i in held_out)


def test_one_huge_document_does_not_become_the_validation_text() -> None:
    documents = ("x" * 10_000, *(f"small {i}" * 10 for i in range(30)))
    assert all(0 not in hold_out_documents(documents, 0.1, seed) for seed in range(10))


def test_two_documents_leave_one_on_each_side() -> None:
    assert len(hold_out_documents(("a" * 100, "b" * 100), 0.1, seed=1)) == 1
    assert len(hold_out_documents(("a" * 100, "b" * 100), 0.9, seed=1)) == 1


def test_every_document_is_on_exactly_one_side_and_begins_with_bos() -> None:
    result = split()
    both = text_of(result.train.tokens).split("|")[1:] + text_of(result.val.tokens).split("|")[1:]
    assert sorted(both) == sorted(DOCUMENTS)
    assert result.train.num_documents + result.val.num_documents == len(DOCUMENTS)
    assert all(result.train.tokens[start] == 1 for start in result.train.offsets[:-1])


def test_canaries_are_in_the_training_side_only() -> None:
    result = split(canary_count=3)
    train, val = text_of(result.train.tokens), text_of(result.val.tokens)
    for canary in result.canaries:
        assert train.count(canary.secret) == 1
        assert canary.secret not in val
        assert canary.secret not in result.train_text


def test_canaries_follow_from_the_seed_alone() -> None:
    assert make_canaries(2, 1) == make_canaries(3, 1)[:2]
    assert make_canaries(2, 1) != make_canaries(2, 2)


def test_a_single_document_falls_back_to_its_end_and_says_so() -> None:
    result = split(("a" * 80 + "b" * 20,))
    assert result.mode == "window"
    assert result.note is not None and "same document" in result.note
    assert text_of(result.train.tokens) == "|" + "a" * 80
    assert text_of(result.val.tokens) == "|" + "b" * 20


def test_window_mode_was_asked_for_so_it_needs_no_note() -> None:
    assert split(mode="window").note is None


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_tokens_take_two_bytes_where_the_vocabulary_allows(vocab_size: int, dtype: type) -> None:
    assert encode_documents(["abc"], CodePoints(vocab_size)).tokens.dtype == dtype


def write(tmp_path: Path, text: str, documents: object) -> tuple[Path, Path]:
    corpus, manifest = tmp_path / "corpus.txt", tmp_path / "corpus_manifest.json"
    corpus.write_bytes(text.encode())
    manifest.write_text(json.dumps({"documents": documents}))
    return corpus, manifest


def test_spans_count_characters_as_they_are_in_the_file(tmp_path: Path) -> None:
    corpus, manifest = write(
        tmp_path,
        "h\u00e9\r\n\n\nab",
        [{"path": "x", "char_start": 0, "char_end": 4}, {"path": "y", "char_start": 6, "char_end": 8}],
    )
    found = read_corpus(corpus, manifest)
    assert found.documents == ("h\u00e9\r\n", "ab")
    assert found.labels == ("x", "y")


@pytest.mark.parametrize(
    ("text", "documents", "code"),
    [
        ("", [], Code.CORPUS_EMPTY),
        ("abc", [], Code.CORPUS_EMPTY),
        ("abc", [{"char_start": 0, "char_end": 4}], Code.INPUT_CHANGED),
        ("abc", [{"char_start": 0}], Code.FILE_UNREADABLE),
        ("abc", "text", Code.FILE_UNREADABLE),
    ],
)
def test_a_bad_corpus_is_refused_with_its_code(
    tmp_path: Path, text: str, documents: object, code: Code
) -> None:
    with pytest.raises(ContractError) as caught:
        read_corpus(*write(tmp_path, text, documents))
    assert caught.value.code == code


def test_a_missing_or_binary_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError) as caught:
        read_corpus(tmp_path / "none.txt", None)
    assert caught.value.code == Code.CORPUS_MISSING
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ContractError) as caught:
        read_corpus(tmp_path / "binary", None)
    assert caught.value.code == Code.FILE_UNREADABLE
