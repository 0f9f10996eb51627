"""Dataset: sources become corpus.txt; SFT rows and eval items are taken over or generated; all are compared.

Writes corpus.txt, corpus_manifest.json, corpus_report.md, chat_benchmark.jsonl, eval_benchmark.jsonl and
honesty/honesty_report.json. No torch.
"""

from pathlib import Path

from picochat_contract import layout
from picochat_contract.data_configs import DatasetConfig, FileRef, FileSource
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.context import StageContext
from picochat_trainer.data.corpus import Corpus
from picochat_trainer.data.honesty import honesty_report
from picochat_trainer.data.manifest import write_corpus
from picochat_trainer.data.sources import open_sources, read_utf8
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft
from picochat_trainer.tuning.rows import read_chat, read_eval, to_jsonl

NUM_STEPS = 4


def run(context: StageContext, config: DatasetConfig) -> dict[str, float]:
    context.events.progress(0, NUM_STEPS, "steps", "reading the sources")
    corpus = _build_corpus(context, config)
    context.events.progress(1, NUM_STEPS, "steps", "SFT rows")
    _write_chat(context, config)
    context.events.progress(2, NUM_STEPS, "steps", "eval items")
    _write_eval(context, config)
    context.events.progress(3, NUM_STEPS, "steps", "comparing eval, SFT rows and corpus")
    report = honesty_report(
        corpus=context.path(layout.CORPUS), chat=context.path(layout.CHAT), eval=context.path(layout.EVAL)
    )
    write_json(context.output(layout.HONESTY), report)
    level = "info" if report["status"] == "ready" else "warning"
    context.events.log(level, f"honesty {report['status']}: {report['summary']}")
    context.events.progress(NUM_STEPS, NUM_STEPS, "steps")
    return {
        "num_documents": corpus.stats.num_documents,
        "num_characters": corpus.stats.num_characters,
        "num_bytes": corpus.stats.num_bytes,
        "num_sft": report["num_sft"],
        "num_eval": report["num_eval"],
        "exact_prompt_leaks": report["exact_prompt_leaks"],
        "corpus_prompt_hits": report["corpus_prompt_hits"],
        "duplicate_eval_prompts": report["duplicate_eval_prompts"],
    }


def _build_corpus(context: StageContext, config: DatasetConfig) -> Corpus:
    corpus = write_corpus(
        open_sources(config.sources, artifact_path=lambda digest: _artifact(context, digest)),
        config.sources,
        min_score=config.min_score,
        corpus_path=context.output(layout.CORPUS),
        manifest_path=context.output(layout.CORPUS_MANIFEST),
        report_path=context.output(layout.CORPUS_REPORT),
    )
    stats = corpus.stats
    context.events.log(
        "info",
        f"{stats.num_documents:,} documents, {stats.num_characters:,} characters; {len(corpus.dropped)} left out",
    )
    return corpus


def _write_chat(context: StageContext, config: DatasetConfig) -> None:
    path = context.output(layout.CHAT)
    if config.chat is not None:
        _take_over(context, config.chat, path)
        read_chat(path, _name(config.chat))
    else:
        write_text(path, to_jsonl(generate_sft(config.sft_rows, seed=config.seed, style=config.answer_style)))


def _write_eval(context: StageContext, config: DatasetConfig) -> None:
    path = context.output(layout.EVAL)
    if config.eval is not None:
        _take_over(context, config.eval, path)
        read_eval(path, _name(config.eval))
    else:
        write_text(
            path, to_jsonl(generate_eval(config.eval_rows, seed=config.seed, style=config.answer_style))
        )


def _take_over(context: StageContext, reference: FileRef, path: Path) -> None:
    """Copy an own file line by line as it is, so that line numbers in reports are those of the user's file."""
    source = (
        Path(reference.path) if isinstance(reference, FileSource) else _artifact(context, reference.digest)
    )
    if source.is_dir():
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{_name(reference)} is a folder; expected a JSONL file",
            param=_name(reference),
        )
    write_text(path, read_utf8(source, _name(reference)))


def _name(reference: FileRef) -> str:
    return Path(reference.path).name if isinstance(reference, FileSource) else reference.name


def _artifact(context: StageContext, digest: str) -> Path:
    return context.path(f"sources/{digest}")
