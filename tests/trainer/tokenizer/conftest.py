"""Tokenizers of every type, trained on the same few documents."""

from pathlib import Path

import pytest
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer

DOCUMENTS = [
    "The quick brown fox jumps over the lazy dog. It can't stop; it's running.\n\nNext line 12345.\n",
    "def add(a, b):\n    return a + b\n",
    "user assistant system <|im_start|> <|im_end|> <|im_start|> <|endoftext|>" * 20,
    "Gr\u00fc\u00dfe aus \u6771\u4eac \U0001f600\n",
] * 5


def trained(folder: Path, type: str) -> Tokenizer:
    config = TokenizerConfig.model_validate({"type": type, "vocab_size": 400})
    save_tokenizer(
        train_tokenizer(config, DOCUMENTS), folder / "tokenizer.json", folder / "tokenizer_config.json"
    )
    return Tokenizer.load(folder / "tokenizer.json")


@pytest.fixture(params=["char", "byte", "bpe"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    return trained(tmp_path, request.param)
