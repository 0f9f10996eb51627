"""A random model small enough to answer in milliseconds, the real byte tokenizer, and real servers for both."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import uvicorn
from openai import OpenAI
from picochat_contract.configs import ModelConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_trainer.inference import Engine
from picochat_trainer.inference.scheduler import Scheduler
from picochat_trainer.inference.server import ServerSettings, create_app
from picochat_trainer.model import GPT
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.training.checkpoint import Metadata, Weights, save_weights

CONFIG = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=32, sequence_len=64)
DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class RunningServer:
    url: str
    scheduler: Scheduler

    def client(self, key: str = "unused") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=DEADLINE_SECONDS)


ServerStarter = Callable[[Engine, ServerSettings], RunningServer]


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


@pytest.fixture(scope="module")
def start_server() -> Iterator[ServerStarter]:
    """Start uvicorn on a free loopback port in a thread; all are stopped after the module's tests."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(engine: Engine, settings: ServerSettings) -> RunningServer:
        app = create_app(engine, settings)
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        until(lambda: server.started)
        return RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service.scheduler)

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Poll a condition until a deadline."""
    return until
