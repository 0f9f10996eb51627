"""A run folder with a small corpus and a byte tokenizer, and stage processes over it."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from picochat_contract.configs import BaseConfig
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.manifest import StageJob
from picochat_contract.spec import validated
from picochat_contract.stages import StageName
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from support.corpora import write_corpus
from support.forks import ForkedStage

TINY_BASE: dict[str, Any] = {
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 16, "sequence_len": 64},
    "max_steps": 60,
    "device_batch_size": 4,
    "warmup_steps": 5,
    "eval_every": 10,
    "checkpoint_every": 5,
    "log_every": 1,
    "sample_tokens": 8,
    "compile": "off",
}

Started = subprocess.Popen[bytes] | ForkedStage
StartStage = Callable[..., Started]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of several tests at a time wait for each other: models this small then take ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def prepared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("prepared")
    prepare_tokens(
        run_dir, [topics[name].strip() for name in sorted(topics, key=lambda n: len(topics[n]))[8:24]]
    )
    return run_dir


def prepare_tokens(run_dir: Path, documents: list[str]) -> TokenStore:
    """Corpus, byte tokenizer and token store, as the stages before base leave them."""
    write_corpus(run_dir, documents)
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, run_dir / "tokenizer.json", run_dir / "tokenizer_config.json")
    corpus, loaded = CorpusStore.at(run_dir), Tokenizer.load(run_dir)
    return build_token_store(corpus, loaded, run_dir / "tokens", encoder="tokenizers").store


@pytest.fixture
def make_tokens() -> Callable[[Path, list[str]], TokenStore]:
    return prepare_tokens


@pytest.fixture
def new_run(prepared_run: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Make a fresh run folder with inputs and nothing else."""

    def make(name: str = "run") -> Path:
        return Path(shutil.copytree(prepared_run, tmp_path / name))

    return make


@pytest.fixture
def base_config() -> Callable[..., BaseConfig]:
    return tiny_base_config


@pytest.fixture
def start_stage() -> StartStage:
    return start_base_stage


@pytest.fixture(scope="session")
def finish_stage() -> Callable[..., int]:
    """Run a base stage process to its end and return its exit code."""

    def finish(run_dir: Path, **settings: Any) -> int:
        return start_base_stage(run_dir, **settings).wait(timeout=120)

    return finish


@pytest.fixture(scope="session")
def undisturbed_run(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base stage that nothing disturbed."""
    run_dir = Path(shutil.copytree(prepared_run, tmp_path_factory.mktemp("undisturbed") / "run"))
    assert start_base_stage(run_dir, is_program=True).wait(timeout=120) == 0
    return run_dir


def tiny_base_config(**changes: Any) -> BaseConfig:
    return validated(BaseConfig, {**TINY_BASE, **changes})


def start_base_stage(
    run_dir: Path,
    nproc: int = 1,
    inputs: dict[str, str] | None = None,
    strategy: str = "ddp",
    is_program: bool = False,
    **changes: Any,
) -> Started:
    """Start a base stage process by the protocol of docs/protocol.md.

    It begins with its imports done, and so do its ranks, if it is to have any, unless it is to be a program.
    """
    resources = {"device": "cpu", "nproc_per_node": nproc, "num_threads": 1, "distributed_strategy": strategy}
    job = StageJob.model_validate(
        {
            "stage": StageName.BASE,
            "config": tiny_base_config(**changes).model_dump(mode="json"),
            "resources": resources,
            "inputs": inputs or {},
        }
    )
    config = run_dir / "stages" / "base" / "stage.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(job.model_dump_json(), encoding="utf-8")
    arguments, log = ["base", "--config", str(config), "--out", str(run_dir)], config.parent / "log.txt"
    if not is_program:
        return ForkedStage(arguments, log)
    with log.open("ab") as output:
        command = [sys.executable, "-m", "picochat_trainer", *arguments]
        return subprocess.Popen(command, stdout=output, stderr=output)
