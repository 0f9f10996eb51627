"""A run folder with a small seeded corpus, and base trainings in it by the real loop, reader and checkpoints."""

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
from torch import Tensor

from picochat_trainer.context import StageContext
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.model import GPT
from picochat_trainer.sanity.setup import SEED, Setup
from picochat_trainer.stages import base
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer
from picochat_trainer.tokens import TokenStore, build_token_store
from picochat_trainer.training import loop
from picochat_trainer.training.bpb import BpbValidator
from picochat_trainer.training.fingerprint import training_fingerprint
from picochat_trainer.training.pretraining_data import read_pretraining_data, split_for
from picochat_trainer.training.resume import Training

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
    """What a training came to."""

    train_losses: tuple[float, ...]
    """By step, from the first one on, nats."""
    val_losses: tuple[float, ...]
    num_steps: int
    weights_sha256: str | None = None
    """Of all last weights; None where only a report was read."""


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
    """Train in this process with the loop of the base stage, going on from a checkpoint that is there.

    Raises what the loop raises. The base stage itself would also probe and sample, which takes longer than the training.
    """
    resources = Resources(device=kind_of(setup))
    job = StageJob(stage=StageName.BASE, config=settings.model_dump(mode="json"), resources=resources)
    context = StageContext(run_dir, job, device=setup.device)
    tokenizer, store = Tokenizer.load(run_dir), TokenStore.open(run_dir / layout.TOKENS_DIR)
    data = read_pretraining_data(store, settings, split_for(store, settings))
    with _random_state_kept(setup.device):
        model = GPT(settings.model, tokenizer.vocab_size)
        model.init_weights(settings.seed)
        outcome = loop.train(
            context,
            Training(
                model=model.to(setup.device),
                batches=data.batches,
                validator=BpbValidator(
                    data.val,
                    [len(raw) for raw in tokenizer.token_bytes],
                    sequence_len=settings.model.sequence_len,
                    batch_rows=settings.device_batch_size,
                ),
                config=settings,
                fingerprint=training_fingerprint(
                    StageName.BASE,
                    context,
                    settings,
                    data={"tokens": store.sha256},
                    tokenizer=tokenizer.digest,
                ),
                best=layout.BASE_BEST,
                resume=base.RESUME,
            ),
        )
    points = [point.model_dump(exclude_none=True) for point in outcome.state.losses]
    return _trained(points, outcome.state.step, _digest(outcome.weights))


def trained(run_dir: Path) -> Trained:
    """What the base stage reported in this folder."""
    report = json.loads((run_dir / layout.BASE_REPORT).read_text(encoding="utf-8"))
    return _trained(report["losses"], int(report["num_steps"]), None)


def kind_of(setup: Setup) -> Any:
    """`resources.device` of the suite's device."""
    return "cuda" if setup.on_gpu else "cpu"


def _trained(points: list[dict[str, Any]], num_steps: int, digest: str | None) -> Trained:
    def of(name: str) -> tuple[float, ...]:
        return tuple(point[name] for point in points if name in point)

    return Trained(
        train_losses=of("train_loss"), val_losses=of("val_loss"), num_steps=num_steps, weights_sha256=digest
    )


def _digest(weights: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@contextmanager
def _random_state_kept(device: str) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
        yield


def _documents(seed: int) -> Iterator[str]:
    rng, words = random.Random(seed), _TEXT.split()
    for _ in range(NUM_DOCUMENTS):
        sentences = (" ".join(rng.choices(words, k=rng.randint(6, 14))) for _ in range(rng.randint(3, 12)))
        yield " ".join(f"{sentence.capitalize()}." for sentence in sentences)
