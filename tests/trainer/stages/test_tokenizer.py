"""The tokenizer stage."""

from pathlib import Path
from typing import Any

import pytest
from picochat_contract import layout
from picochat_contract.errors import Code, ContractError
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from support.corpora import write_corpus


@pytest.mark.parametrize("type", ["char", "byte", "bpe", "hf_bpe"])
def test_every_type_writes_a_tokenizer_and_measures_it(tmp_path: Path, run_stage: Any, type: str) -> None:
    text = "the cat sat on the mat, again and again\n" * 50
    (tmp_path / layout.CORPUS).write_text(text)
    metrics = run_stage("tokenizer", {"type": type, "vocab_size": 300})
    tokenizer = Tokenizer.load(tmp_path / layout.TOKENIZER)
    assert metrics["vocab_size"] == tokenizer.vocab_size
    store = TokenStore.open(tmp_path / layout.TOKENS_DIR)
    assert tokenizer.decode(store.document(0).tolist()) == text
    assert metrics["num_tokens"] == store.num_tokens and metrics["tokens_per_second"] > 0
    if type in ("char", "byte"):
        assert metrics["bytes_per_token"] == 1.0
    else:
        assert metrics["bytes_per_token"] > 1.5


def test_a_missing_corpus_is_an_error(run_stage: Any) -> None:
    with pytest.raises(ContractError) as caught:
        run_stage("tokenizer")
    assert caught.value.code is Code.CORPUS_MISSING


def test_the_store_is_an_output_and_names_its_encoder(tmp_path: Path, run_stage: Any) -> None:
    write_corpus(tmp_path, [f"Document {i} of the corpus.\n" * 20 for i in range(10)])
    run_stage("tokenizer", {"vocab_size": 300, "encoder": "tokenizers", "shard_tokens": 1000})
    store = TokenStore.open(tmp_path / layout.TOKENS_DIR)
    store.check_digests()
    assert len(store.shards) > 1 and store.num_documents == 10
    assert store.manifest["encoder"]["name"] == "tokenizers"
    events = (tmp_path / "stages/tokenizer/events.jsonl").read_text()
    assert "by tokenizers at" in events and "all of the corpus" in events
