"""Building a token store: what it holds, that it is whole or absent, and when the fast encoder is given up."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store, encoders, writer
from picochat_trainer.tokens.encoders import Encoded, ReferenceEncoder, failures_explained
from picochat_trainer.tokens.writer import Built
from support.corpora import write_corpus


def build(tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer, **settings: Any) -> Built:
    return build_token_store(corpus, tokenizer, tmp_path / "tokens", **settings)


class Wrong(ReferenceEncoder):
    """Right but for one text."""

    name = "gigatoken"
    trigger = "Document 7 "

    def encode(self, texts: Sequence[str]) -> Encoded:
        encoded = super().encode(texts)
        ids = encoded.ids.copy()
        for index, row in enumerate(encoded.rows()):
            if self.trigger in texts[index]:
                end = int(encoded.lengths[: index + 1].sum())
                ids[end - len(row)] ^= 1
        return Encoded(ids=ids, lengths=encoded.lengths)


class WrongOnEmoji(Wrong):
    trigger = "\U0001f469\u200d"


class Forger(ReferenceEncoder):
    """Reads special-token text as the special token, in the one document that holds it."""

    name = "gigatoken"

    def encode(self, texts: Sequence[str]) -> Encoded:
        encoded = super().encode(texts)
        if len(texts) > 40:
            encoded.ids[-1] = 1
        return encoded


class BeyondVocabulary(ReferenceEncoder):
    """Gives an id that the tokenizer does not have."""

    name = "gigatoken"

    def encode(self, texts: Sequence[str]) -> Encoded:
        encoded = super().encode(texts)
        if len(texts) > 40:
            encoded.ids[-1] = 70_000
        return encoded


class Short(ReferenceEncoder):
    """Forgets a text."""

    name = "gigatoken"

    def encode(self, texts: Sequence[str]) -> Encoded:
        return super().encode(texts[:-1] if len(texts) > 40 else texts)


class Failing(ReferenceEncoder):
    name = "gigatoken"

    def encode(self, texts: Sequence[str]) -> Encoded:
        if len(texts) > 40:
            with failures_explained("gigatoken"):
                raise ValueError("a text that it cannot take")
        return super().encode(texts)


def test_every_document_comes_back_with_bos_and_its_bytes(
    tmp_path: Path, corpus: CorpusStore, any_tokenizer: Tokenizer
) -> None:
    store = build(tmp_path, corpus, any_tokenizer).store
    documents = list(corpus.documents())
    assert store.num_documents == len(documents)
    for document in documents:
        bos, *ids = store.document(document.index).tolist()
        assert bos == any_tokenizer.bos_id
        assert any_tokenizer.decode_bytes(ids) == document.text.encode()
        assert store.document_bytes[document.index] == len(document.text.encode())
    assert store.num_bytes == sum(len(d.text.encode()) for d in documents)
    assert store.document_ids([0, 3]) == ["id-0", "id-3"]
    assert store.document_paths([3]) == ["document-3"]


@pytest.mark.parametrize("encoder", ["tokenizers", "tiktoken", "gigatoken"])
@pytest.mark.parametrize("batch_characters", [50, 1 << 22])
def test_encoder_and_batch_size_change_no_byte(
    tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch,
    encoder: Any, batch_characters: int,
) -> None:  # fmt: skip
    expected = build_token_store(corpus, tokenizer, tmp_path / "plain", encoder="tokenizers").store
    monkeypatch.setattr(writer, "BATCH_CHARACTERS", batch_characters)
    monkeypatch.setattr(writer, "PIECE_CHARACTERS", batch_characters)
    built = build(tmp_path, corpus, tokenizer, encoder=encoder)
    assert built.encoder == encoder
    assert built.store.sha256 == expected.sha256
    assert built.store.manifest["shards"] == expected.manifest["shards"]


def test_shards_end_with_a_document_and_are_about_as_long_as_asked(
    tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer
) -> None:
    whole = build_token_store(corpus, tokenizer, tmp_path / "whole").store
    store = build(tmp_path, corpus, tokenizer, shard_tokens=100).store
    assert len(store.shards) > 5
    longest = int(np.diff(store.offsets).max())
    for shard in store.shards:
        assert 100 <= shard.num_tokens < 100 + longest or shard is store.shards[-1]
        start = store.bases[store.shards.index(shard)]
        assert store.offsets[shard.first_document] == start
    assert sum(shard.num_documents for shard in store.shards) == store.num_documents
    assert np.array_equal(np.concatenate(store.arrays), whole.arrays[0])
    for index in range(store.num_documents):
        assert np.array_equal(store.document(index), whole.document(index))


def test_the_manifest_says_what_it_was_made_of(
    tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer
) -> None:
    store = build(tmp_path, corpus, tokenizer).store
    manifest = json.loads((tmp_path / "tokens/token_shards_manifest.json").read_text())
    assert manifest["format"] == "picochat-tokens" and manifest["dtype"] == "uint16"
    assert (manifest["vocab_size"], manifest["bos"]) == (tokenizer.vocab_size, tokenizer.bos_id)
    assert (manifest["corpus_sha256"], manifest["tokenizer_sha256"]) == (corpus.sha256, tokenizer.digest)
    assert manifest["encoder"]["name"] == "gigatoken" and manifest["encoder"]["equal"] is True
    assert manifest["encoder"]["sample_documents"] == store.num_documents  # a small corpus is compared whole
    store.check_digests()


@pytest.mark.parametrize("wrong", [Wrong, WrongOnEmoji, Forger, BeyondVocabulary, Short, Failing])
def test_an_encoder_with_other_ids_is_given_up_with_the_reason(
    tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch,
    wrong: type[ReferenceEncoder],
) -> None:  # fmt: skip
    monkeypatch.setitem(encoders.ENCODERS, "gigatoken", wrong)
    expected = build_token_store(corpus, tokenizer, tmp_path / "plain", encoder="tokenizers").store
    messages: list[str] = []
    built = build(
        tmp_path, corpus, tokenizer, encoder="gigatoken", log=lambda level, text: messages.append(text)
    )
    assert built.encoder == built.store.manifest["encoder"]["name"] == "tokenizers"
    assert built.store.sha256 == expected.sha256
    assert messages[0].startswith("gigatoken was given up: gigatoken")
    assert ("special token" in messages[0]) == (wrong is Forger)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
def test_the_last_ids_on_both_sides_of_two_bytes_come_back(
    tmp_path: Path, vocab_size: int, dtype: type[np.generic]
) -> None:
    characters = [chr(point) for point in range(0x100, 0x20000) if not 0xD800 <= point < 0xE000]
    text = "".join(characters[: vocab_size - 256 - 4])
    trained = train_tokenizer(TokenizerConfig(type="char", min_freq=1), [text])
    save_tokenizer(trained, tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json")
    write_corpus(tmp_path, [text[-3:], text])
    tokenizer = Tokenizer.load(tmp_path)
    store = build(tmp_path, CorpusStore.at(tmp_path), tokenizer).store
    assert (tokenizer.vocab_size, store.dtype) == (vocab_size, dtype)
    assert store.document(1).max() == vocab_size - 1
    assert [tokenizer.decode(store.document(i).tolist()) for i in (0, 1)] == [text[-3:], text]


def test_a_build_that_dies_leaves_the_old_store_or_none(
    tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer, "write_json", die)
        build(tmp_path, corpus, tokenizer)
    assert not list(tmp_path.glob("*tokens*"))
    digest = build(tmp_path, corpus, tokenizer).store.sha256
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer, "write_json", die)
        build(tmp_path, corpus, tokenizer)
    assert TokenStore.open(tmp_path / "tokens").sha256 == digest
    assert [path.name for path in tmp_path.glob("*tokens*")] == ["tokens"]


def test_a_second_build_replaces_the_first_and_keeps_no_copy(
    tmp_path: Path, corpus: CorpusStore, tokenizer: Tokenizer
) -> None:
    build(tmp_path, corpus, tokenizer)
    write_corpus(tmp_path, ["one", "two"])
    assert build(tmp_path, CorpusStore.at(tmp_path), tokenizer).store.num_documents == 2
    assert [path.name for path in tmp_path.glob("*tokens*")] == ["tokens"]


def test_a_corpus_without_documents_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_corpus(tmp_path, [])
    with pytest.raises(ContractError) as caught:
        build(tmp_path, CorpusStore.at(tmp_path), tokenizer)
    assert caught.value.code is Code.CORPUS_EMPTY
