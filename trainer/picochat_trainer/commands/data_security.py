"""`picochat data security-pack`: a dataset pack of defensive security questions. No torch."""

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from picochat_contract.errors import Code, ContractError
from picochat_contract.exit_codes import ClientExit
from picochat_contract.packs import DatasetPack, PackCorpus

from picochat_trainer.atomic import write_json, write_text
from picochat_trainer.data.imports.outputs import PACK, check_free, relative_to, write_dataset_file
from picochat_trainer.tuning.packs.files import source_texts
from picochat_trainer.tuning.packs.security import (
    BUNDLED_LICENSE,
    BUNDLED_SEEDS,
    CHAT,
    CORPUS,
    EVAL,
    PREFERENCES,
    TRENDYOL,
    InstructionSource,
    SecurityRows,
    security_rows,
)
from picochat_trainer.tuning.packs.verdict import Verdict, judge_rows
from picochat_trainer.tuning.rows import to_jsonl

REPORT: Final = "security_pack_report.json"

app = typer.Typer()


class SeedSource(StrEnum):
    SEED = "seed"
    TRENDYOL = "trendyol"


@app.command()
def security_pack(
    out_dir: Annotated[Path, typer.Option(help="Folder of the new pack.")],
    seed_dir: Annotated[
        Path, typer.Option(help=f"{CHAT}, {EVAL}, {PREFERENCES} and {CORPUS}/. Default: small bundled ones.")
    ] = BUNDLED_SEEDS,
    corpus: Annotated[
        Path | None, typer.Option(help=f"File or folder of text. Default: {CORPUS}/ of the seeds.")
    ] = None,
    source: Annotated[
        SeedSource, typer.Option(help="seed: the seeds alone; trendyol: an instruction dataset, too.")
    ] = SeedSource.SEED,
    trendyol_dataset: Annotated[str, typer.Option(help="Name on the hub, or a folder.")] = TRENDYOL,
    trendyol_split: Annotated[str, typer.Option(help="Split to read.")] = "train",
    trendyol_revision: Annotated[
        str | None, typer.Option(help="Commit to read; the report names the one that was read.")
    ] = None,
    trendyol_max_rows: Annotated[int, typer.Option(min=1, help="Rows to read.")] = 10_000,
    eval_rows: Annotated[int, typer.Option(min=4, help="Eval items at most.")] = 500,
    preference_rows: Annotated[int, typer.Option(min=0, help="Preference pairs at most.")] = 64,
    max_row_chars: Annotated[
        int, typer.Option(min=100, help="Leave out longer rows of the dataset.")
    ] = 4_000,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal rows.")] = 42,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> None:
    """Make a pack of security questions; exit 2 where an eval prompt would leak."""
    outputs = {name: out_dir / name for name in (CHAT, EVAL, PREFERENCES, REPORT, PACK)}
    check_free([*outputs.values(), out_dir / CORPUS], force=force, option="--force")
    text = corpus or seed_dir / CORPUS
    if not text.exists():
        raise ContractError(
            Code.CORPUS_MISSING,
            f"there is no {text}; a pack needs a corpus that is not its SFT rows: give --corpus",
            param="--corpus",
        )
    instructions = InstructionSource(
        dataset=trendyol_dataset,
        split=trendyol_split,
        revision=trendyol_revision,
        max_rows=trendyol_max_rows,
        max_characters=max_row_chars,
    )
    rows = security_rows(
        seed_dir,
        instructions if source is SeedSource.TRENDYOL else None,
        num_eval=eval_rows,
        num_preferences=preference_rows,
        seed=seed,
    )
    verdict = judge_rows(rows.chat, rows.eval, source_texts(text), preferences=rows.preferences)
    for line in verdict.lines:
        print(line)
    if verdict.leaks:
        print("nothing was written: an eval prompt is also a prompt that trains")
        raise typer.Exit(ClientExit.GATE_BLOCKED)
    write_text(outputs[CHAT], to_jsonl(rows.chat))
    write_text(outputs[EVAL], to_jsonl(rows.eval))
    outputs[PREFERENCES].unlink(missing_ok=True)
    if rows.preferences:
        write_text(outputs[PREFERENCES], to_jsonl(rows.preferences))
    write_dataset_file(outputs[PACK], _pack(out_dir, text, has_preferences=bool(rows.preferences)))
    write_json(outputs[REPORT], _report(rows, verdict, seed_dir, text, source))
    for note in rows.notes:
        print(f"note: {note}")
    print(
        f"{len(rows.chat)} SFT rows, {len(rows.eval)} eval items, {len(rows.preferences)} preference pairs\n"
        f"{outputs[REPORT]}\n{outputs[PACK]}"
    )


def _pack(out_dir: Path, text: Path, *, has_preferences: bool) -> DatasetPack:
    """Bundled text is copied, so that the pack does not point into an installation."""
    bundled = text == BUNDLED_SEEDS / CORPUS
    place = relative_to(text, out_dir / PACK)
    if bundled:
        shutil.rmtree(out_dir / CORPUS, ignore_errors=True)
        shutil.copytree(text, out_dir / CORPUS)
        place = CORPUS
    values: dict[str, Any] = {
        "name": "security",
        "description": "Questions and answers about defensive security.",
        "corpus": PackCorpus(input=place),
        "chat": CHAT,
        "eval": EVAL,
        "preferences": PREFERENCES if has_preferences else None,
        "license": BUNDLED_LICENSE if bundled else None,
    }
    return DatasetPack(**values)


def _report(
    rows: SecurityRows, verdict: Verdict, seed_dir: Path, text: Path, source: SeedSource
) -> dict[str, Any]:
    honesty = verdict.honesty
    return {
        "source": source.value,
        "seed_dir": "bundled" if seed_dir == BUNDLED_SEEDS else str(seed_dir),
        "corpus": "bundled" if text == BUNDLED_SEEDS / CORPUS else str(text),
        "imported": rows.imported,
        "num_seeds": rows.num_seeds,
        "num_chat": len(rows.chat),
        "num_eval": len(rows.eval),
        "num_preferences": len(rows.preferences),
        "left_out": {reason: count for reason, count in rows.left_out.items() if count},
        "eval_rules": verdict.eval.rules.num_items if verdict.eval.rules else {},
        "chat_status": verdict.chat.status,
        "eval_status": verdict.eval.status,
        "honesty": {
            "status": honesty["status"],
            "summary": honesty["summary"],
            "pairs": {pair["pair"]: pair["risk"] for pair in honesty["contamination_matrix"]["pairs"]},
        },
        "notes": rows.notes,
    }
