"""`picochat batch inspect`: rows of a training batch as the model gets them, with their targets as text."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer
from picochat_contract.configs import BaseConfig
from picochat_contract.spec import validated
from torch import Tensor

from picochat_trainer.commands.token_folder import tokens_for
from picochat_trainer.model.gpt import IGNORE_INDEX
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokens import TokenStore
from picochat_trainer.training.pretraining_data import PretrainingData, read_pretraining_data, split_for

SHOWN_TOKENS = 12

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def batch() -> None:
    """Look at training batches."""


@app.command()
def inspect(
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json.")],
    tokens: Annotated[Path | None, typer.Option(help="A token store, such as runs/x/tokens.")] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Text, corpus_manifest.json or folder of a corpus, to be encoded first."),
    ] = None,
    corpus_manifest: Annotated[
        Path | None, typer.Option(help="corpus_manifest.json: where documents begin and end.")
    ] = None,
    context_size: Annotated[int, typer.Option(help="Context window, tokens.")] = 64,
    examples: Annotated[int, typer.Option(help="Rows to show.", min=1)] = 2,
    mode: Annotated[
        Literal["memory", "sharded", "packed"], typer.Option(help="How the tokens are read.")
    ] = "memory",
    split_mode: Annotated[
        Literal["document", "window"], typer.Option(help="How text is held out.")
    ] = "document",
    val_fraction: Annotated[float, typer.Option(help="Part that is held out.")] = 0.1,
    seed: Annotated[int, typer.Option()] = 42,
) -> None:
    """Show the first rows that training without canaries would read, and how the tokens are split and used."""
    loaded = Tokenizer.load(tokenizer)
    config = validated(
        BaseConfig,
        {
            "model": {"sequence_len": context_size},
            "dataset_mode": mode,
            "split_mode": split_mode,
            "device_batch_size": examples,
            "val_fraction": val_fraction,
            "seed": seed,
        },
    )
    with tempfile.TemporaryDirectory(prefix="picochat-") as scratch:
        folder = tokens_for(
            tokens=tokens,
            corpus=corpus,
            corpus_manifest=corpus_manifest,
            tokenizer=tokenizer,
            out_dir=Path(scratch),
        )
        store = TokenStore.open(folder)
        data = read_pretraining_data(store, config, split_for(store, config))
        print(_facts(data))
        [(tokens_BT, targets_BT)] = data.batches.next_step().micro_batches
        for row in range(examples):
            print(_row(loaded, row, tokens_BT[row], targets_BT[row]))


def _facts(data: PretrainingData) -> str:
    facts = data.facts()
    lines = [
        f"{facts['num_documents']:,} documents: {facts['num_train_documents']:,} train ({facts['train_tokens']:,} "
        f"tokens), {facts['num_val_documents']:,} are held out ({facts['val_tokens']:,} tokens) by {facts['split_mode']}",
        f"mode {facts['dataset_mode']}: at most {facts['dropped_tokens']:,} training tokens are in no row of an epoch",
    ]
    if facts["split_note"]:
        lines.append(f"note: {facts['split_note']}")
    if packing := facts["packing"]:
        lines.append(
            f"packed into {packing['num_rows']:,} rows of {packing['row_tokens']:,} tokens, "
            f"{packing['filled_fraction']:.2%} full"
        )
    return "\n".join(lines)


def _row(tokenizer: Tokenizer, number: int, tokens_T: Tensor, targets_T: Tensor) -> str:
    ids = tokens_T.tolist()
    scored = targets_T != IGNORE_INDEX
    begins = sum(id == tokenizer.bos_id for id, used in zip(ids, scored.tolist(), strict=True) if used)
    targets = [id for id in targets_T.tolist() if id != IGNORE_INDEX]
    return "\n".join(
        [
            "",
            f"row {number}: {len(ids)} tokens, {int(scored.sum())} targets, {begins} documents begin in it",
            f"  input ids   {ids[:SHOWN_TOKENS]} ...",
            f"  target ids  {targets[:SHOWN_TOKENS]} ...",
            f"  input   {tokenizer.decode(ids, skip_special=False)!r}",
            f"  targets {tokenizer.decode(targets, skip_special=False)!r}",
        ]
    )
