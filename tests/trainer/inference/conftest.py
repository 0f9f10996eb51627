"""A random model small enough to answer in milliseconds, with the real byte tokenizer."""

from pathlib import Path

import pytest
import torch
from picochat_contract.configs import ModelConfig, TokenizerConfig
from picochat_trainer.inference import Engine
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.training.checkpoint import Metadata, Weights, save_weights

CONFIG = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, sequence_len=64)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(TokenizerConfig(type="byte"), []), digest="0" * 64)


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> GPT:
    """Weights far larger than at the start of training, so that probabilities differ clearly."""
    model = GPT(CONFIG, tokenizer.vocab_size)
    model.init_weights(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return model


@pytest.fixture(scope="session")
def engine(model: GPT, tokenizer: Tokenizer) -> Engine:
    return Engine(model, tokenizer)


@pytest.fixture(scope="session")
def checkpoint_dir(model: GPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkpoints") / "best_checkpoint"
    weights = Weights(config=model.config, vocab_size=model.vocab_size, tensors=dict(model.state_dict()))
    save_weights(directory, weights, Metadata(kind="best_validation", step=1))
    return directory


@pytest.fixture(scope="session")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    backend = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(backend, folder / "tokenizer.json", folder / "tokenizer_config.json")
    return folder / "tokenizer.json"
