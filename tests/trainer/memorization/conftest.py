"""Token stores of made-up words, a byte tokenizer, and models that learned nothing or one text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.inference.engine import Engine
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from support.corpora import write_corpus

LearnedText = Callable[[str, int], Engine]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(TokenizerConfig(type="byte"), []), digest="0" * 64)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[list[str]], TokenStore]:
    """Build the token store of documents."""

    def make(documents: list[str]) -> TokenStore:
        write_corpus(tmp_path, documents)
        save_tokenizer(
            train_tokenizer(TokenizerConfig(type="byte"), []),
            tmp_path / "tokenizer.json",
            tmp_path / "tokenizer_config.json",
        )
        corpus, loaded = CorpusStore.at(tmp_path), Tokenizer.load(tmp_path)
        return build_token_store(corpus, loaded, tmp_path / "tokens", encoder="tokenizers").store

    return make


@pytest.fixture
def words() -> Callable[[int, int], str]:
    """Text of so many characters that follows from a seed and hardly repeats."""

    def text(seed: int, length: int) -> str:
        rng = np.random.default_rng(seed)
        return "".join(chr(code) for code in rng.integers(97, 123, size=length))

    return text


@pytest.fixture(scope="session")
def untrained(tokenizer: Tokenizer) -> Engine:
    """Random weights far larger than at the start of training, so that probabilities differ clearly."""
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, sequence_len=64), tokenizer.vocab_size)
    model.init_weights(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return Engine(model, tokenizer)


@pytest.fixture
def learned(tokenizer: Tokenizer) -> LearnedText:
    """A small model after some steps on all windows of one text."""

    def train(text: str, steps: int) -> Engine:
        model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=32, sequence_len=64), tokenizer.vocab_size)
        model.init_weights(1)
        ids_T = torch.tensor([tokenizer.bos_id, *tokenizer.encode(text)])
        ids_BT = ids_T.unfold(0, min(len(ids_T), model.config.sequence_len + 1), 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(steps):
            model.loss(ids_BT[:, :-1], ids_BT[:, 1:]).backward()
            optimizer.step()
            optimizer.zero_grad()
        return Engine(model, tokenizer)

    return train
