"""`picochat tok`: train a tokenizer, and look at what it makes of a text. No torch."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from picochat_contract import layout
from picochat_contract.data_configs import TokenizerConfig
from picochat_contract.errors import Code, ContractError
from picochat_contract.spec import validated
from rich.console import Console
from rich.table import Table
from rich.text import Text

from picochat_trainer.commands.token_folder import warn_of_rows
from picochat_trainer.data.corpus_store import CorpusStore
from picochat_trainer.tokenizer import Tokenizer
from picochat_trainer.tokenizer.inspection import Piece, inspect_text
from picochat_trainer.tokenizer.sample import sample_texts
from picochat_trainer.tokenizer.training import save_tokenizer, train_tokenizer

MEASURED_BYTES = 1_000_000  # of text, encoded again to measure how well it compresses
EXAMPLE = "The quick brown fox, 2024. <|im_start|>"

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
    input: Annotated[
        Path,
        typer.Option(help="UTF-8 text, corpus_manifest.json, or the folder of a built corpus."),
    ],
    out: Annotated[
        Path,
        typer.Option(help="tokenizer.json to write, or a folder; tokenizer_config.json goes beside it."),
    ],
    type: Annotated[TokenizerType, typer.Option(help="hf_bpe is another name of bpe.")] = TokenizerType.CHAR,
    vocab_size: Annotated[int, typer.Option(help="Target size with special tokens; bpe only.")] = 1024,
    min_freq: Annotated[int, typer.Option(help="Least count of a pair (bpe) or of a character (char).")] = 1,
    seed: Annotated[
        int, typer.Option(help="Draws the sample of a corpus that is too large to train on.")
    ] = 42,
) -> None:
    """Train a tokenizer and show what it makes of a sentence."""
    config = validated(
        TokenizerConfig, {"type": type.value, "vocab_size": vocab_size, "min_freq": min_freq, "seed": seed}
    )
    out = out / layout.TOKENIZER if out.is_dir() else out
    corpus = CorpusStore.of(input)
    warn_of_rows(input)
    sample = sample_texts(corpus, config.seed)
    trained = train_tokenizer(config, sample)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_tokenizer(trained, out, out.with_name(layout.TOKENIZER_CONFIG))
    tokenizer = Tokenizer.load(out)
    if type in (TokenizerType.BPE, TokenizerType.HF_BPE) and tokenizer.vocab_size < vocab_size:
        print(
            f"warning: only {tokenizer.vocab_size} tokens of the {vocab_size} that were asked for: no other pair stands "
            f"{min_freq} times in the text; give more text, a smaller --vocab-size or a smaller --min-freq",
            file=sys.stderr,
        )
    ratio = _bytes_per_token(tokenizer, corpus, config.seed)
    print(f"{tokenizer.vocab_size} tokens, {ratio:.2f} bytes per token, from {sample.describe()}: {out}")
    pieces = inspect_text(tokenizer, EXAMPLE)
    print(f"{EXAMPLE!r} is {len(pieces)} tokens: {[piece.text for piece in pieces]}")


@app.command()
def inspect(
    tokenizer: Annotated[Path, typer.Option(help="tokenizer.json.")],
    text: Annotated[str | None, typer.Option(help="Text to encode.")] = None,
    file: Annotated[Path | None, typer.Option(help="UTF-8 file to encode; - is standard input.")] = None,
    limit: Annotated[int, typer.Option(help="Tokens to list; 0 lists all.")] = 200,
) -> None:
    """List ids, pieces, bytes and offsets of a text, and say what becomes of special-token text in it."""
    loaded = Tokenizer.load(tokenizer)
    content = _content(text, file)
    pieces = inspect_text(loaded, content)
    shown = pieces if limit == 0 else pieces[:limit]
    Console().print(_table(shown))
    if len(shown) < len(pieces):
        print(f"... and {len(pieces) - len(shown):,} more; --limit 0 lists all")
    num_bytes = len(content.encode())
    ratio = num_bytes / max(len(pieces), 1)
    print(
        f"{len(pieces):,} tokens, {len(content):,} characters, {num_bytes:,} bytes, {ratio:.2f} bytes per token"
    )
    whole = loaded.decode_bytes([piece.id for piece in pieces]) == content.encode()
    print(f"round trip: {'the same bytes' if whole else 'OTHER BYTES'}")
    for token, id in loaded.special_tokens.items():
        written = content.count(token)
        made = sum(piece.id == id for piece in pieces)
        if written:
            print(f"{token} stands {written} times in the text and gave its special id {id} {made} times")


def _content(text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise ContractError(
            Code.INVALID_VALUE, "give either --text or --file, for what is to be encoded", param="--text"
        )
    if text is not None:
        return text
    assert file is not None
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ContractError(
            Code.FILE_UNREADABLE, f"{file} cannot be read as UTF-8 text: {error}", param="--file"
        ) from error


def _table(pieces: list[Piece]) -> Table:
    table = Table(box=None, header_style="bold")
    for column in ("#", "id", "bytes at", "characters", "piece", "bytes"):
        table.add_column(column, justify="left" if column in ("piece", "bytes") else "right")
    for number, piece in enumerate(pieces):
        characters = f"{piece.char_start}-{piece.char_end}"
        table.add_row(
            *(str(value) for value in (number, piece.id, piece.byte_start)),
            characters,
            Text(repr(piece.text)),
            piece.raw.hex(" "),
        )
    return table


def _bytes_per_token(tokenizer: Tokenizer, corpus: CorpusStore, seed: int) -> float:
    texts = list(sample_texts(corpus, seed, max_bytes=MEASURED_BYTES)) or list(sample_texts(corpus, seed))
    num_tokens = sum(map(len, tokenizer.encode_batch(texts)))
    return sum(len(text.encode()) for text in texts) / max(num_tokens, 1)
