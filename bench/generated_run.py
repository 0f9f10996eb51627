"""The inputs and the job of a base stage from generated text, for benches of training.

Text is words of random letters with Zipf's frequencies, so that no corpus is needed and every machine has the same.
"""

import json
import random
import string
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
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
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for

NUM_WORDS = 60_000
DOCUMENT_WORDS = 400
SAMPLE_BYTES = 16_000_000
NEVER = 1_000_000
"""Steps between things that are not part of a step."""


def write_inputs(folder: Path, *, vocab_size: int, num_bytes: int) -> TokenStore:
    """Corpus, tokenizer and token store as the stages before base leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = _documents(num_bytes)
    _write_corpus(folder, documents)
    sample, size = [], 0
    for document in documents:
        sample.append(document)
        size += len(document)
        if size > SAMPLE_BYTES:
            break
    tokenizer = train_tokenizer(TokenizerConfig(type="bpe", vocab_size=vocab_size), sample)
    save_tokenizer(tokenizer, folder / "tokenizer.json", folder / "tokenizer_config.json")
    return build_token_store(CorpusStore.at(folder), Tokenizer.load(folder), folder / "tokens").store


def base_config(num_steps: int, **changes: Any) -> BaseConfig:
    """A base stage whose steps are nothing but training; the schedule has one step more than are measured."""
    settings: dict[str, Any] = {
        "max_steps": num_steps + 1,
        "learning_rate": 1e-3,
        "warmup_steps": 10,
        "val_fraction": 0.02,
        "canary_count": 0,
        "sample_tokens": 0,
        "eval_every": NEVER,
        "checkpoint_every": NEVER,
        "compile": "on",
    }
    return validated(BaseConfig, {**settings, **changes})


def write_job(run_dir: Path, inputs: Path, config: BaseConfig, resources: Mapping[str, Any]) -> None:
    """stage.json of a base stage in `run_dir` that reads `inputs`."""
    names = ("tokenizer.json", "tokenizer_config.json", "tokens", "corpus_manifest.json")
    job = StageJob.model_validate(
        {
            "stage": StageName.BASE,
            "config": config.model_dump(mode="json"),
            "resources": dict(resources),
            "paths": {name: str((inputs / name).absolute()) for name in names},
        }
    )
    path = run_dir / "stages" / "base" / "stage.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(job.model_dump_json(), encoding="utf-8")


def stage_command(
    run_dir: Path, num_steps: int, out: Path, started: float, *, alone: bool = False
) -> list[str]:
    """The command of the stage process of `write_job`; `alone` makes it a process group of one rank."""
    script = Path(__file__).with_name("stage_process.py")
    command = [sys.executable, str(script), str(run_dir), str(out), str(num_steps), repr(started)]
    return [*command, "alone"] if alone else command


def write_rows(store: TokenStore, config: BaseConfig, num_steps: int, path: Path) -> None:
    """An .npy file of the rows that the stage will read, in its order: (rows, T + 1) ids."""
    batches = read_pretraining_data(store, config, split_for(store, config)).batches
    rows = []
    for _ in range(num_steps):
        for tokens_BT, targets_BT in batches.next_step().micro_batches:
            last_B1 = targets_BT[:, -1:].clamp_min(0)  # a packed row may end in padding
            rows.append(torch.cat([tokens_BT, last_B1], 1).numpy().astype(np.int32))
    np.save(path, np.concatenate(rows))


def last_loss(run_dir: Path) -> float | None:
    """The last training loss that the stage told."""
    values = [
        json.loads(line)["data"].get("values", {}).get("train_loss")
        for line in (run_dir / "stages/base/events.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    return next((float(value) for value in reversed(values) if value is not None), None)


def _documents(num_bytes: int) -> list[str]:
    rng = random.Random(1)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 10))) for _ in range(NUM_WORDS)]
    weights = [1 / (rank + 3) for rank in range(NUM_WORDS)]
    documents, size = [], 0
    while size < num_bytes:
        document = " ".join(rng.choices(words, weights, k=rng.randint(10, 2 * DOCUMENT_WORDS)))
        documents.append(document)
        size += len(document)
    return documents


def _write_corpus(folder: Path, documents: list[str]) -> None:
    spans, start = [], 0
    with (folder / "corpus.txt").open("w", encoding="utf-8", newline="") as file:
        for index, document in enumerate(documents):
            file.write(f"{document}\n\n")
            spans.append(
                {
                    "document_id": f"{index:08x}",
                    "path": f"{index}.txt",
                    "char_start": start,
                    "char_end": start + len(document),
                }
            )
            start += len(document) + 2
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": [],
        "stats": {"num_documents": len(documents)},
        "documents": spans,
    }
    (folder / "corpus_manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
