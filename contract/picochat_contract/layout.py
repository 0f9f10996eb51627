"""Names of the files in a run folder. A laptop's run folder and a cluster's look the same.

corpus/part-00000.parquet corpus/dropped.parquet corpus.txt corpus_manifest.json corpus_report.md
chat_benchmark.jsonl eval_benchmark.jsonl preferences.jsonl external/<name>.jsonl
honesty/{honesty_report,audit_report}.{json,md} preflight.{json,md}
tokenizer.json tokenizer_config.json tokens/{token_shards_manifest.json,tokens-000000.bin,...}
base/  sft/  sft_fit/  sft_fit_heldout/  eval/  gate/  summary.json summary.md
stages/<stage>/{stage.json,events.jsonl,manifest.json,error.json,log.txt,ddp_control.json}
"""

import re
from enum import StrEnum
from pathlib import PurePosixPath

from picochat_contract.errors import Code, ContractError

CORPUS_DIR = "corpus"  # Parquet shards of documents
CORPUS = "corpus.txt"  # beside the shards while it is small
DROPPED = "corpus/dropped.parquet"
CORPUS_MANIFEST = "corpus_manifest.json"
CORPUS_REPORT = "corpus_report.md"
CHAT = "chat_benchmark.jsonl"
EVAL = "eval_benchmark.jsonl"
PREFERENCES = "preferences.jsonl"
EXTERNAL_DIR = "external"  # one <name>.jsonl per external benchmark, in the eval format
HONESTY = "honesty/honesty_report.json"
HONESTY_MD = "honesty/report.md"
AUDIT = "honesty/audit_report.json"
AUDIT_MD = "honesty/audit_report.md"
HOLDOUT = "base/holdout.json"  # ids of the documents that were held out
BASE_SAMPLES = "base/samples.jsonl"  # texts that the base model wrote without a prompt
MEMORIZATION_REPORT = "base/memorization_report.json"
PREFLIGHT = "preflight.json"
PREFLIGHT_MD = "preflight.md"
TOKENS_DIR = "tokens"
TOKEN_MANIFEST = "tokens/token_shards_manifest.json"  # noqa: S105 - tokens of text
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
BASE_DIR = "base"
BASE_BEST = "base/best_checkpoint"
BASE_REPORT = "base/train_report.json"
SFT_DIR = "sft"
SFT_CHECKPOINT = "sft/checkpoint"
SFT_REPORT = "sft/sft_report.json"
FIT_REPORT = "sft_fit/sft_fit_report.json"
FIT_HELDOUT_REPORT = "sft_fit_heldout/sft_fit_report.json"
EVAL_REPORT = "eval/eval_report.json"
GATE_REPORT = "gate/gate_report.json"
SUMMARY = "summary.json"
SUMMARY_MD = "summary.md"
WEIGHTS = "model.safetensors"  # inside every checkpoint folder
RESUME_CHECKPOINT = "resume_checkpoint"  # inside base/ and sft/
KEPT = "kept"  # inside base/ and sft/: step-000500/ and so on, weights of every keep_every steps
TENSORBOARD = "tensorboard"  # inside base/ and sft/, where it was asked for
CURVES = "curves.csv"  # inside base/ and sft/: what was measured, step by step
CURVES_PNG = "curves.png"


class Kind(StrEnum):
    """What an output is, for readers, retention and the pages."""

    DATA = "data"
    TOKENIZER = "tokenizer"
    CHECKPOINT = "checkpoint"
    EVIDENCE = "evidence"  # read by the gate
    REPORT = "report"
    SAMPLE = "sample"
    LOG = "log"


EVIDENCE_PATHS: dict[str, str] = {
    "honesty": HONESTY,
    "preflight": PREFLIGHT,
    "audit": AUDIT,
    "base": BASE_REPORT,
    "sft": SFT_REPORT,
    "sft_fit": FIT_REPORT,
    "sft_fit_heldout": FIT_HELDOUT_REPORT,
    "eval": EVAL_REPORT,
}

DATA_DIRS = (CORPUS_DIR, EXTERNAL_DIR, TOKENS_DIR)
_SEGMENT = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")
MAX_PATH = 512


def check_artifact_path(path: str) -> str:
    """Return `path` if it is a plain relative POSIX path; raise `bad_artifact_path` otherwise."""
    segments = path.split("/")
    if len(path) > MAX_PATH or not all(_SEGMENT.fullmatch(segment) for segment in segments):
        raise ContractError(
            Code.BAD_ARTIFACT_PATH,
            f"artifact path {path!r}: expected segments of letters, digits, '.', '_', '-' that start with a "
            "letter, digit or '_' and are joined by '/'; no '..', no leading '/'",
            param="path",
        )
    return path


def kind_of(path: str) -> Kind:
    """The kind of a run-folder file, from its name alone."""
    pure = PurePosixPath(path)
    if path in EVIDENCE_PATHS.values():
        return Kind.EVIDENCE
    if pure.suffix == ".safetensors" or any(
        part == KEPT or part.endswith("checkpoint") for part in pure.parts
    ):
        return Kind.CHECKPOINT
    if path in (TOKENIZER, TOKENIZER_CONFIG):
        return Kind.TOKENIZER
    if path in (CORPUS, CORPUS_MANIFEST, CHAT, EVAL, PREFERENCES) or path.split("/")[0] in DATA_DIRS:
        return Kind.DATA
    if pure.name in ("log.txt", "events.jsonl") or TENSORBOARD in pure.parts:
        return Kind.LOG
    return Kind.SAMPLE if pure.name in ("sample.txt", "samples.jsonl", "canary_probe.txt") else Kind.REPORT
