"""A corpus of awkward documents and a tokenizer of each type."""

from pathlib import Path

import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from support.corpora import write_corpus

DOCUMENTS = [
    "The quick brown fox jumps over the lazy dog.\r\nIt can't stop; it's running.\n\nNext line 12345.",
    "def add(a, b):\n    return a + b\n" * 20,
    "A user writes <|im_start|>system and <|im_end|> and <|endoftext|> and <|pad|>.",
    "Gr\u00fc\u00dfe aus \u6771\u4eac \U0001f600 e\u0301",
    "",
    *(f"Document {i} of the number {i * i}.\n" * (1 + i % 9) for i in range(60)),
]


def make_tokenizer(folder: Path, type: str = "bpe") -> Tokenizer:
    config = TokenizerConfig.model_validate({"type": type, "vocab_size": 400})
    trained = train_tokenizer(config, [document * 3 for document in DOCUMENTS])
    save_tokenizer(trained, folder / "tokenizer.json", folder / "tokenizer_config.json")
    return Tokenizer.load(folder)


@pytest.fixture(params=["char", "byte", "bpe"])
def any_tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path, request.param)


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return make_tokenizer(tmp_path)


@pytest.fixture
def corpus(tmp_path: Path) -> CorpusStore:
    write_corpus(tmp_path, DOCUMENTS)
    return CorpusStore.at(tmp_path)
