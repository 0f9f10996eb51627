"""`picochat tok train`: a tokenizer from a text. No torch."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.spec import validated

from picochat_trainer.stages.tokenizer import bytes_per_token
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.training import read_chunks, save_tokenizer, train_tokenizer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


class TokenizerType(StrEnum):
    """Values of `TokenizerConfig.type`."""

    CHAR = "char"
    BYTE = "byte"
    BPE = "bpe"
    HF_BPE = "hf_bpe"


@app.callback()
def tok() -> None:
    """Train and try tokenizers."""


@app.command()
def train(
    input: Annotated[Path, typer.Option(help="UTF-8 text, such as corpus.txt.")],
    out: Annotated[Path, typer.Option(help="tokenizer.json to write; tokenizer_config.json goes beside it.")],
    type: Annotated[TokenizerType, typer.Option(help="hf_bpe is another name of bpe.")] = TokenizerType.CHAR,
    vocab_size: Annotated[int, typer.Option(help="Target size with special tokens; bpe only.")] = 1024,
    min_freq: Annotated[int, typer.Option(help="Least count of a pair (bpe) or of a character (char).")] = 1,
) -> None:
    """Train a tokenizer and show what it makes of a sentence."""
    config = validated(TokenizerConfig, {"type": type.value, "vocab_size": vocab_size, "min_freq": min_freq})
    out.parent.mkdir(parents=True, exist_ok=True)
    trained = train_tokenizer(config, read_chunks(input))
    save_tokenizer(trained, out, out.with_name("tokenizer_config.json"))
    tokenizer = Tokenizer.load(out)
    print(f"{tokenizer.vocab_size} tokens, {bytes_per_token(tokenizer, input):.2f} bytes per token: {out}")
    example = "The quick brown fox, 2024."
    ids = tokenizer.encode(example)
    pieces = [tokenizer.token_bytes[id].decode("utf-8", errors="replace") for id in ids]
    print(f"{example!r} is {len(ids)} tokens: {pieces}")
