"""Dataset: sources become a cleaned corpus; SFT rows, eval items, preferences and external benchmarks are taken over or
generated.

Writes corpus/part-NNNNN.parquet, corpus/dropped.parquet, corpus_manifest.json, corpus_report.md, corpus.txt where it
is small, chat_benchmark.jsonl, eval_benchmark.jsonl and, where given, preferences.jsonl and external/<name>.jsonl.
Whether the parts leak into one another is for the honesty stage to say. No torch.
"""

import shutil
from pathlib import Path

from picochat_contract import layout
from picochat_contract.data_configs import ArtifactSource, DatasetConfig, FileRef, FileSource
from picochat_contract.errors import Code, ContractError

from picochat_trainer.atomic import write_text
from picochat_trainer.context import StageContext
from picochat_trainer.data.corpus import Places, build_corpus
from picochat_trainer.data.facts import Corpus
from picochat_trainer.data.readiness import judge_corpus
from picochat_trainer.data.sources import open_sources, read_utf8
from picochat_trainer.tuning.external import read_external
from picochat_trainer.tuning.preferences import read_preferences
from picochat_trainer.tuning.release_skills import generate_eval, generate_sft
from picochat_trainer.tuning.rows import read_chat, read_eval, to_jsonl

NUM_STEPS = 5


def run(context: StageContext, config: DatasetConfig) -> dict[str, float]:
    _remove_earlier(context)
    # rows first: what is wrong with them should not come to light after hours of reading text
    context.events.progress(0, NUM_STEPS, "steps", "SFT rows")
    num_sft = _write_chat(context, config)
    context.events.progress(1, NUM_STEPS, "steps", "eval items")
    num_eval = _write_eval(context, config)
    context.events.progress(2, NUM_STEPS, "steps", "preferences")
    num_preferences = _write_preferences(context, config)
    context.events.progress(3, NUM_STEPS, "steps", "external benchmarks")
    num_external = _write_external(context, config)
    context.events.progress(4, NUM_STEPS, "steps", "reading the sources")
    corpus = _build_corpus(context, config)
    context.events.progress(NUM_STEPS, NUM_STEPS, "steps")
    stats = corpus.stats
    return {
        "num_documents": stats.num_documents,
        "num_characters": stats.num_characters,
        "num_bytes": stats.num_bytes,
        "num_read": stats.num_read,
        "num_removed": stats.num_removed,
        "num_exact_removed": stats.num_exact_removed,
        "num_near_removed": stats.num_near_removed,
        "duplicate_line_rate": stats.duplicate_line_rate,
        "num_sft": num_sft,
        "num_eval": num_eval,
        "num_preferences": num_preferences,
        "num_external": num_external,
    }


def _remove_earlier(context: StageContext) -> None:
    """Optional files of an attempt with another config would be read as this one's."""
    context.path(layout.PREFERENCES).unlink(missing_ok=True)
    shutil.rmtree(context.path(layout.EXTERNAL_DIR), ignore_errors=True)


def _build_corpus(context: StageContext, config: DatasetConfig) -> Corpus:
    def progress(num_documents: int, num_characters: int) -> None:
        message = f"{num_documents:,} documents read, {num_characters / 1e6:,.0f} million characters"
        context.events.progress(NUM_STEPS - 1, NUM_STEPS, "steps", message)

    corpus = build_corpus(
        open_sources(config.sources, artifact_path=lambda digest: _artifact(context, digest)),
        config.sources,
        config.cleaning,
        config.min_score,
        Places(
            folder=context.output(layout.CORPUS_DIR),
            text=context.path(layout.CORPUS),
            manifest=context.output(layout.CORPUS_MANIFEST),
            report=context.output(layout.CORPUS_REPORT),
        ),
        context.num_workers,
        progress=progress,
    )
    if corpus.is_empty:
        raise ContractError(
            Code.CORPUS_EMPTY,
            f"the dataset sources hold no usable document: {judge_corpus(corpus).summary}; {layout.CORPUS_REPORT} "
            "lists every file and what became of it",
            param="dataset.sources",
        )
    if corpus.text is not None:
        context.output(layout.CORPUS)
    stats = corpus.stats
    context.events.log(
        "info",
        f"{stats.num_documents:,} documents, {stats.num_characters:,} characters; of {stats.num_read:,} that came in "
        f"{stats.num_exact_removed:,} were removed as exact duplicates, {stats.num_near_removed:,} as near "
        f"duplicates, {stats.num_other_removed:,} for other reasons",
    )
    return corpus


def _write_chat(context: StageContext, config: DatasetConfig) -> int:
    path = context.output(layout.CHAT)
    if config.chat is not None:
        _take_over(context, config.chat, path)
        return len(read_chat(path, _name(config.chat)))
    rows = generate_sft(config.sft_rows, seed=config.seed, style=config.answer_style)
    write_text(path, to_jsonl(rows))
    return len(rows)


def _write_eval(context: StageContext, config: DatasetConfig) -> int:
    path = context.output(layout.EVAL)
    if config.eval is not None:
        _take_over(context, config.eval, path)
        return len(read_eval(path, _name(config.eval)))
    items = generate_eval(config.eval_rows, seed=config.seed, style=config.answer_style)
    write_text(path, to_jsonl(items))
    return len(items)


def _write_preferences(context: StageContext, config: DatasetConfig) -> int:
    if config.preferences is None:
        return 0
    path = context.output(layout.PREFERENCES)
    _take_over(context, config.preferences, path)
    return len(read_preferences(path, _name(config.preferences)))


def _write_external(context: StageContext, config: DatasetConfig) -> int:
    """Convert each benchmark to eval items, with the line numbers of the user's file only in errors."""
    num_items = 0
    for name, reference in sorted(config.external.items()):
        output = layout.check_artifact_path(f"{layout.EXTERNAL_DIR}/{name}.jsonl")
        items = read_external(_located(context, reference), name)
        write_text(context.output(output), to_jsonl(items))
        num_items += len(items)
    return num_items


def _take_over(context: StageContext, reference: FileRef, path: Path) -> None:
    """Copy an own file line by line as it is, so that line numbers in reports are those of the user's file."""
    write_text(path, read_utf8(_located(context, reference), _name(reference)))


def _located(context: StageContext, reference: FileRef) -> Path:
    match reference:
        case FileSource():
            path = Path(reference.path)
        case ArtifactSource():
            path = _artifact(context, reference.digest)
        case _:
            raise ContractError(
                Code.INVALID_VALUE,
                f"the dataset {reference.name!r} is registered on a server, which alone can open it; submit the run "
                "there, or give the file by its path",
                param=reference.name,
            )
    if path.is_dir():
        raise ContractError(
            Code.FILE_UNREADABLE,
            f"{_name(reference)} is a folder; expected a JSONL file",
            param=_name(reference),
        )
    return path


def _name(reference: FileRef) -> str:
    return Path(reference.path).name if isinstance(reference, FileSource) else reference.name


def _artifact(context: StageContext, digest: str) -> Path:
    return context.path(f"sources/{digest}")
