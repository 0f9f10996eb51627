"""A run folder with a small seeded corpus, and base trainings in it: the real stage, loop, reader and checkpoints."""

import hashlib
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from picochat_contract import layout
from picochat_contract.configs import BaseConfig, Resources
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.manifest import StageJob
from picochat_contract.spec import validated
from picochat_contract.stages import StageName

from picochat_trainer.context import StageContext
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.sanity.setup import SEED, Setup
from picochat_trainer.stages import base
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store

NUM_DOCUMENTS: Final = 60
SHARD_TOKENS: Final = 6_000
_CONFIG: Final[dict[str, Any]] = {
    "model": {"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 64, "sequence_len": 64},
    "max_steps": 8,
    "device_batch_size": 4,
    "grad_accum_steps": 2,
    "warmup_steps": 2,
    "eval_every": 4,
    "checkpoint_every": 3,
    "log_every": 1,
    "canary_count": 0,
    "sample_tokens": 0,
    "compile": "off",
}
_TEXT: Final = (
    "the a of in and to river stone light paper winter garden letter copper market signal window harbour forest "
    "engine ladder meadow planet circle silver morning question answer number story little quiet early bright open "
    "walks carries finds keeps turns builds reads sends holds"
)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training left."""

    losses: tuple[dict[str, float], ...]
    """By step: step, train_loss, and where it was measured val_loss."""
    weights_sha256: str
    num_steps: int

    @property
    def train_losses(self) -> list[float]:
        return [point["train_loss"] for point in self.losses]


def prepare(run_dir: Path, *, seed: int = SEED) -> TokenStore:
    """Corpus, byte tokenizer and a token store of several shards, as the stages before base leave them."""
    run_dir.mkdir(parents=True, exist_ok=True)
    text, spans = "", []
    for index, document in enumerate(_documents(seed)):
        start = len(text)
        text += document
        name = f"document-{index}"
        spans.append({"document_id": name, "path": name, "char_start": start, "char_end": len(text)})
        text += "\n\n"
    (run_dir / layout.CORPUS).write_text(text, encoding="utf-8", newline="")
    manifest = {
        "format": "picochat-corpus",
        "version": 2,
        "shards": [],
        "stats": {"num_documents": len(spans)},
        "documents": spans,
    }
    (run_dir / layout.CORPUS_MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    tokenizer = train_tokenizer(TokenizerConfig(type="byte"), [])
    save_tokenizer(tokenizer, run_dir / layout.TOKENIZER, run_dir / layout.TOKENIZER_CONFIG)
    return build_token_store(
        CorpusStore.at(run_dir),
        Tokenizer.load(run_dir),
        run_dir / layout.TOKENS_DIR,
        encoder="tokenizers",
        shard_tokens=SHARD_TOKENS,
    ).store


def config(setup: Setup, **changes: Any) -> BaseConfig:
    """Of a tiny training with the precision and attention that the suite was asked about."""
    asked = {"precision": setup.precision, "attn_backend": setup.attn_backend}
    return validated(BaseConfig, {**_CONFIG, **asked, **changes})


def train(setup: Setup, run_dir: Path, settings: BaseConfig) -> Trained:
    """Run the base stage in this process, going on from a checkpoint that is there; raises what the stage raises."""
    job = StageJob(
        stage=StageName.BASE,
        config=settings.model_dump(mode="json"),
        resources=Resources(device=kind_of(setup)),
    )
    with _random_state_kept(setup.device):
        base.run(StageContext(run_dir, job, device=setup.device), settings)
    return trained(run_dir)


def trained(run_dir: Path) -> Trained:
    """What the last training in this folder reported."""
    report = json.loads((run_dir / layout.BASE_REPORT).read_text(encoding="utf-8"))
    names = ("step", "train_loss", "val_loss")
    points = [{name: p[name] for name in names if name in p} for p in report["losses"] if "train_loss" in p]
    weights = (run_dir / base.LAST / layout.WEIGHTS).read_bytes()
    return Trained(
        losses=tuple(points),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        num_steps=int(report["num_steps"]),
    )


def kind_of(setup: Setup) -> Any:
    """`resources.device` of the suite's device."""
    return "cuda" if setup.on_gpu else "cpu"


@contextmanager
def _random_state_kept(device: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
        yield


def _documents(seed: int) -> Iterator[str]:
    rng, words = random.Random(seed), _TEXT.split()
    for _ in range(NUM_DOCUMENTS):
        sentences = (" ".join(rng.choices(words, k=rng.randint(6, 14))) for _ in range(rng.randint(3, 12)))
        yield " ".join(f"{sentence.capitalize()}." for sentence in sentences)
